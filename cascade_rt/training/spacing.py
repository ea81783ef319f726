"""Which pixels and slices a training has seen, for the bundle to know."""

from collections.abc import Sequence
from dataclasses import replace

from cascade_rt.config import CascadeConfig
from cascade_rt.data.slices import Case
from cascade_rt.errors import UsageError
from cascade_rt.pixel_grid import in_range, trained_range


def with_spacing(cascade: CascadeConfig, cases: Sequence[Case], zoom: tuple[float, float]) -> CascadeConfig:
    """Record the sides of pixels and the distances of slices in training cases; what the config says stays.

    Args:
        cascade: The config, with or without ranges of its own.
        cases: The cases to train on.
        zoom: How much smaller and larger augmentation shows them, as a factor.

    Raises:
        UsageError: The config has a range of its own for pixels, and those of a case lie outside it: scans like that
            case would be resampled, and it is trained on as it is.
    """
    pixel_mm = cascade.pixel_mm or trained_range((side for case in cases for side in case.spacing_mm[1:]), zoom)
    for case in cases:
        sides = case.spacing_mm[1:]
        if not in_range(sides, pixel_mm):
            raise UsageError(
                f"case {case.name} has pixels of {sides[0]:.3g} x {sides[1]:.3g} mm, outside cascade.pixel_mm; "
                "widen that range, or leave it out"
            )
    distances = [case.spacing_mm[0] for case in cases if not case.scattered]
    slice_mm = cascade.slice_mm or (trained_range(distances) if distances else None)
    return replace(cascade, pixel_mm=pixel_mm, slice_mm=slice_mm)
