"""Measure lesions, the connected components of tumor in a mask: size, position, and contact with the pancreas."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.pixel_runs import Peaks, Runs, connected, touching

Numbers = npt.NDArray[np.intp]
"""`[run]`, the lesion number of each run."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """One connected component of tumor (voxels that share a face, an edge or a corner)."""

    volume_ml: float
    diameter_mm: float
    """Diameter of a sphere of the same volume."""
    longest_axial_diameter_mm: float
    """Longest distance between two points of the lesion in one slice, with pixels as rectangles; as in RECIST."""
    center_mm: tuple[float, float, float]
    """Center of mass in the scan's world frame (right-anterior-superior, as in NIfTI)."""
    slices: int
    """Number of slices with the lesion."""
    first_slice: int
    """The lowest of these slices, in the canonical frame."""
    last_slice: int
    """The highest of these slices."""
    touches_pancreas: bool | None
    """Whether the lesion shares a face, an edge or a corner with the pancreas; None if that was not looked for."""
    score: float | None
    """The largest tumor probability of its voxels, as returned by the network; None if not kept."""


def measure_lesions(
    tumor: Runs,
    pancreas: Runs | None,
    affine: npt.NDArray[np.float64],
    voxel_volume_ml: float,
    *,
    peaks: Peaks | None = None,
    across_slices: bool = True,
) -> tuple[Lesion, ...]:
    """Measure each lesion of a mask.

    Args:
        tumor: Runs of the tumor.
        pancreas: Runs of the pancreas without tumor; None if it was not looked for.
        affine: 4x4, from the index (z, row, col) to world mm.
        voxel_volume_ml: Volume of one voxel, ml.
        peaks: The largest probability in each run of the tumor, and possibly in other runs; None if not kept.
        across_slices: Whether adjacent slices are adjacent in the patient.

    Returns:
        The lesions, largest first.
    """
    # Vectorized over lesions: speckle has thousands, and a loop over them would take longer than the networks.
    count, number = connected(tumor, across_slices=across_slices)
    if not count:
        return ()
    touches = None if pancreas is None else np.zeros(count, dtype=np.bool_)
    if pancreas is not None and touches is not None:
        touches[number[touching(tumor, pancreas, across_slices=across_slices)[0]]] = True
    scores = None if peaks is None else _largest(peaks.of(tumor), number, count)
    order = np.argsort(number, kind="stable")
    tumor, number = tumor[order], number[order]
    voxels = np.bincount(number, weights=tumor.lengths, minlength=count).astype(np.float64)
    diameters = _axial_diameters(tumor, number, count, np.linalg.norm(affine[:3, 1:3], axis=0))
    centers = _centers(tumor, number, voxels) @ affine[:3, :3].T + affine[:3, 3]
    slices, first, last = _slices(tumor, number, count)
    lesions = (
        Lesion(
            volume_ml=int(voxels[piece]) * voxel_volume_ml,
            diameter_mm=float(np.cbrt(6000.0 * int(voxels[piece]) * voxel_volume_ml / np.pi)),
            longest_axial_diameter_mm=float(diameters[piece]),
            center_mm=tuple(centers[piece].tolist()),
            slices=int(slices[piece]),
            first_slice=int(first[piece]),
            last_slice=int(last[piece]),
            touches_pancreas=None if touches is None else bool(touches[piece]),
            score=None if scores is None else float(scores[piece]),
        )
        for piece in range(count)
    )
    return tuple(sorted(lesions, key=lambda lesion: lesion.volume_ml, reverse=True))


def _largest(values: npt.NDArray[np.float32], number: Numbers, count: int) -> npt.NDArray[np.float32]:
    """Return the largest value among the runs of each lesion, `[lesion]`."""
    largest = np.zeros(count, dtype=np.float32)
    np.maximum.at(largest, number, values)
    return largest


def _centers(tumor: Runs, number: Numbers, voxels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean index (z, row, col) of each lesion, `[lesion, axis]`."""
    first, behind = tumor.columns
    middles = (tumor.slices, tumor.rows, (first + behind - 1) / 2)
    sums = [np.bincount(number, weights=tumor.lengths * middle, minlength=len(voxels)) for middle in middles]
    return np.stack(sums, axis=1) / voxels[:, None]


def _slices(tumor: Runs, number: Numbers, count: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return the number of slices of each lesion, the first and the last. Runs must be sorted by lesion."""
    seen = np.unique(np.stack((number, tumor.slices)), axis=1)
    ends = np.searchsorted(seen[0], np.arange(count + 1))
    return np.diff(ends), seen[1, ends[:-1]], seen[1, ends[1:] - 1]


def _axial_diameters(tumor: Runs, number: Numbers, count: int, pixel_mm: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the longest distance in one slice of each lesion, mm. Runs must be sorted by lesion."""
    # The two farthest points are corners of the first or last pixel of a row.
    line = tumor.starts // tumor.row_stride
    begins = np.flatnonzero(np.diff(line, prepend=-1) | np.diff(number, prepend=-1))
    low, high = tumor.columns[0][begins], tumor.columns[1][np.append(begins[1:], len(tumor)) - 1]
    row, lesion = tumor.rows[begins], number[begins]
    plane = lesion * tumor.shape[0] + tumor.slices[begins]
    plane_ends = np.searchsorted(plane, plane, side="right")
    longest = np.zeros(count)
    here, step = np.arange(len(begins)), 0
    while len(here):
        there = here + step
        across = np.maximum(high[there] - low[here], high[here] - low[there]) * pixel_mm[1]
        down = (row[there] - row[here] + 1) * pixel_mm[0]
        np.maximum.at(longest, lesion[here], np.hypot(down, across))
        step += 1
        here = here[here + step < plane_ends[here]]
    return longest
