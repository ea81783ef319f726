"""Pixel and slice spacings seen in training, to be recorded in the bundle."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cascade_rt.config import CascadeConfig
from cascade_rt.data.slices import Case


def with_spacing(cascade: CascadeConfig, cases: Sequence[Case]) -> CascadeConfig:
    """Record the ranges of pixel size and slice spacing of the training cases. Ranges set in the config are kept.

    The zoom of augmentation is not counted: the networks see few examples at its extremes and do badly there
    (docs/decisions/0020).

    Args:
        cascade: The config, with or without ranges.
        cases: The cases to train on.
    """
    sides = (side for case in cases for side in case.spacing_mm[1:])
    distances = [case.spacing_mm[0] for case in cases if not case.scattered]
    return replace(
        cascade,
        pixel_mm=cascade.pixel_mm or _range(sides),
        slice_mm=cascade.slice_mm or (_range(distances) if distances else None),
    )


def _range(lengths_mm: Iterable[float]) -> tuple[float, float]:
    lengths = list(lengths_mm)
    return min(lengths), max(lengths)
