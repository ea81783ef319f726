"""The cascade on several engines, and how far their masks agree with those of PyTorch."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.comparison import Agreement, compare
from cascade_rt.common.labels import ORGAN_LABEL
from cascade_rt.common.tensors import EnginePrecision
from cascade_rt.engines import BACKENDS, Backend
from cascade_rt.errors import CascadeError, UsageError
from cascade_rt.run.cascade import Cascade, open_cascade

Labels = npt.NDArray[np.uint8]
REFERENCE = "pytorch:fp32"
"""What the masks of the other engines are compared with."""


def arm_names(backends: str, precisions: str) -> list[str]:
    """Every backend in every precision, as `onnxruntime:fp32`; the reference too where there is more than one.

    Raises:
        UsageError: There is no such backend.
    """
    names = []
    for backend in _split(backends):
        if backend not in BACKENDS:
            raise UsageError(f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)}")
        names += [f"{backend}:{precision}" for precision in _split(precisions)]
    if not names:
        raise UsageError("choose at least one backend and one precision")
    return names if len(names) == 1 or REFERENCE in names else [*names, REFERENCE]


def open_arms(
    bundle: Bundle, names: Iterable[str], stack: ExitStack, say: Callable[[str], None]
) -> tuple[dict[str, Cascade], dict[str, str]]:
    """Open a bundle on each engine; the stack closes them.

    Returns:
        The cascades that run here, in the order of their names, and for each that does not, why.

    Raises:
        CascadeError: None of them runs here.
    """
    cascades: dict[str, Cascade] = {}
    left_out: dict[str, str] = {}
    failure: CascadeError = UsageError("no engine was given")
    for name in names:
        backend, _, precision = name.partition(":")
        say(f"opening {name}")
        try:
            opened = open_cascade(bundle.path, cast(Backend, backend), cast(EnginePrecision, precision))
        except CascadeError as error:
            failure, left_out[name] = error, str(error)
            continue
        stack.enter_context(opened)
        cascades[name] = Cascade(keep_all_islands(opened.bundle), opened.engines)
    if not cascades:
        raise failure
    return cascades, left_out


def keep_all_islands(bundle: Bundle) -> Bundle:
    """The same bundle with masks as the networks find them, whatever its setting `islands` says."""
    config = bundle.manifest.config
    if getattr(config, "islands", "all") == "all":
        return bundle
    options: dict[str, Any] = {"islands": "all"}
    return replace(bundle, manifest=replace(bundle.manifest, config=replace(config, **options)))


def agreement_with_reference(masks: Mapping[str, Labels]) -> dict[str, dict[str, Any]]:
    """For each engine but the reference: differing voxels, and the Dice of its organ with that of the reference.

    Args:
        masks: For each engine its labels `[z, row, col]` of the same scan; without the reference nothing is compared.
    """
    if REFERENCE not in masks:
        return {}
    others = {name: mask for name, mask in masks.items() if name != REFERENCE}
    found = {name: compare(masks[REFERENCE], mask, {"organ": ORGAN_LABEL}) for name, mask in others.items()}
    return {
        name: {"voxels": each.voxels, "different_voxels": each.different, "dice": each.dice["organ"]}
        for name, each in found.items()
    }


def agreement_of_all(cases: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Mean and worst Dice with the reference, and differing voxels, over all cases."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for case in cases:
        for name, one in case.items():
            by_name.setdefault(name, []).append(one)
    summary = {}
    for name, found in by_name.items():
        voxels = sum((Agreement(one["voxels"], one["different_voxels"]) for one in found), start=Agreement())
        values = [one["dice"] for one in found if one["dice"] is not None]
        summary[name] = {
            "cases": len(found),
            "cases_with_a_mask": len(values),
            "dice_mean": float(np.mean(values)) if values else None,
            "dice_min": min(values, default=None),
            "different_voxels": voxels.different,
            "different_voxels_worst": max(one["different_voxels"] for one in found),
            "different_voxels_per_100_000": voxels.per_100_000,
        }
    return summary


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
