"""Whether slices form one regular stack, and where it lies. What merely stacks files would silently get wrong."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.slices import DIRECTION_TOLERANCE, Slice
from cascade_rt.scans.grids import Affine

_SPACING_TOLERANCE = 0.01
"""How far a slice may lie from its place between the first and the last, as a fraction of the slice spacing."""
_ROUNDING_MM = 0.1
"""Always tolerated deviation along each axis, from rounding the positions of slice and end slices to one decimal."""
_MOST_UNEVEN = 0.25
"""Upper bound on that tolerance, as a fraction of the slice spacing, so that a missing slice is never hidden."""
_FLOAT_MM = 1e-6
_DRIFT_TOLERANCE = 0.1
"""How far a slice may lie off its line, in pixels."""
_SAME_PLACE_MM = 1e-3


def stack(
    shown: str, slices: Sequence[Slice], is_same: Callable[[Slice, Slice], bool], *, allow_tilt: bool
) -> tuple[Slice, ...]:
    """Sort slices along their normal, keep one per position, and check that they are evenly spaced.

    Args:
        shown: How messages name the scan.
        slices: One or more slices of one series, in any order.
        is_same: Compares the pixels of two slices at one position.
        allow_tilt: Accept slices that are shifted along their planes in proportion to their height (gantry tilt).

    Raises:
        InputError: Slices are missing, out of line, unevenly spaced, of different sizes or orientations, or two
            different slices share a position.
    """
    for entry in slices[1:]:
        _check_alike(slices[0], entry)
    ordered = _without_duplicates(sorted(slices, key=lambda entry: (entry.height_mm, entry.short)), is_same)
    if len(ordered) < 2:
        sentence = "the CT series has 1 slice, but a scan needs at least 2; copy the whole series"
        raise InputError(f"{shown}: {sentence}", code="E_ONE_SLICE")
    _check_drift(shown, ordered, allow_tilt=allow_tilt)
    _check_spacing(shown, ordered)
    return tuple(ordered)


def affine_of(slices: Sequence[Slice]) -> Affine:
    """Return the affine (4x4, from the index (column, row, slice) to world mm, RAS+) of a checked stack."""
    first, last = slices[0], slices[-1]
    matrix = np.eye(4)
    matrix[:3, 0] = np.multiply(first.row_direction, first.pixel_mm[1])
    matrix[:3, 1] = np.multiply(first.column_direction, first.pixel_mm[0])
    matrix[:3, 2] = np.subtract(last.position, first.position) / (len(slices) - 1)
    matrix[:3, 3] = first.position
    affine: Affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    return affine


def spacing_mm(slices: Sequence[Slice]) -> float | None:
    """Return the usual distance between neighbors of slices that have not been checked; None if there is only one."""
    heights = np.unique(np.round([entry.height_mm for entry in slices], 2))
    return float(np.median(np.diff(heights))) if len(heights) > 1 else None


def _check_alike(first: Slice, other: Slice) -> None:
    directions = np.subtract(
        (*first.row_direction, *first.column_direction), (*other.row_direction, *other.column_direction)
    )
    differing = {
        "size": first.shape != other.shape,
        "pixel spacing": not all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(first.pixel_mm, other.pixel_mm)),  # noqa: B905
        "orientation": float(np.abs(directions).max()) > DIRECTION_TOLERANCE,
    }
    for what, differs in differing.items():
        if differs:
            raise InputError(
                f"{other.shown}: differs in {what} from {first.short} of the same series; "
                "keep the slices of one axial series",
                code="E_SLICES_DIFFER",
            )


def _without_duplicates(slices: Sequence[Slice], is_same: Callable[[Slice, Slice], bool]) -> list[Slice]:
    kept = [slices[0]]
    for entry in slices[1:]:
        if math.dist(entry.position, kept[-1].position) > _SAME_PLACE_MM:
            kept.append(entry)
        elif not is_same(entry, kept[-1]):
            raise InputError(
                f"{entry.shown}: has the same position as {kept[-1].short} but another image; "
                "keep one phase or reconstruction",
                code="E_SLICES_DOUBLED",
            )
    return kept


def _check_drift(shown: str, slices: Sequence[Slice], *, allow_tilt: bool) -> None:
    """Refuse slices that are not stacked along one line, and those along another line than their normal."""
    first, last = slices[0], slices[-1]
    heights = np.array([entry.height_mm for entry in slices]) - first.height_mm
    beside = np.subtract([entry.position for entry in slices], first.position) - heights[:, None] * first.normal
    if allow_tilt:
        beside -= beside[-1] * (heights / heights[-1])[:, None]
    drift = np.linalg.norm(beside, axis=1)
    if drift.max() <= max(_DRIFT_TOLERANCE * min(first.pixel_mm), math.hypot(_ROUNDING_MM, _ROUNDING_MM)):
        return
    found = f"slices are up to {drift.max():.1f} mm out of line"
    if allow_tilt:
        raise InputError(f"{shown}: {found}; keep the slices of one acquisition", code="E_SLICES_UNEVEN")
    tilt = math.degrees(math.atan2(drift[-1], last.height_mm - first.height_mm))
    raise InputError(
        f"{shown}: {found} (gantry tilt of {tilt:.1f} degrees?); convert the series with dcm2niix, which corrects it",
        code="E_SLICES_UNEVEN",
    )


def _check_spacing(shown: str, slices: Sequence[Slice]) -> None:
    """Refuse a series with missing slices, or with slices unevenly spaced along their normal.

    Each slice is compared with its place on the line from the first to the last slice, not with its predecessor. When
    positions are rounded, the steps alternate although no slice is out of place.
    """
    heights = np.array([entry.height_mm for entry in slices])
    steps = np.diff(heights)
    with np.errstate(all="ignore"):
        places = np.concatenate([[0], np.cumsum(np.rint(steps / np.median(steps)).astype(int))])
    spacing = float(heights[-1] - heights[0]) / max(1, int(places[-1]))
    off = np.abs(heights - heights[0] - places * spacing)
    rounding = min(_ROUNDING_MM * float(np.abs(slices[0].normal).sum()), _MOST_UNEVEN * spacing)
    # 0.1 has no exact float representation.
    if (np.diff(places) < 1).any() or off.max() > max(_SPACING_TOLERANCE * spacing, rounding) + _FLOAT_MM:
        raise InputError(
            f"{shown}: slices are unevenly spaced, {steps.min():.3g} to {steps.max():.3g} mm apart; "
            "resample the scan or use another reconstruction",
            code="E_SLICES_UNEVEN",
        )
    missing = np.diff(places) - 1
    if missing.any():
        raise InputError(
            f"{shown}: slices are missing: {_gaps(slices, missing)}; copy the whole series", code="E_SLICES_MISSING"
        )


def _gaps(slices: Sequence[Slice], missing: npt.NDArray[np.int_]) -> str:
    pairs, wrong = list(pairwise(slices)), np.flatnonzero(missing)
    gaps = [
        f"{count} between {pairs[index][0]} and {pairs[index][1]}"
        for index, count in zip(wrong.tolist(), missing[wrong].tolist(), strict=True)
    ]
    return "; ".join(gaps[:3]) + (f"; and {len(gaps) - 3} more gaps" if len(gaps) > 3 else "")
