"""Voxel grids: the grid of the input file, and the canonical frame.

The canonical frame is `[z, row, col]`: z toward superior, row toward posterior, col toward the patient's left, like the
pixels of axial DICOM slices. A file may store its axes in any of 48 orientations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt2axcodes,
    ornt_transform,
)

from cascade_rt.errors import InputError
from cascade_rt.scans.nifti.placement import corner_distance_mm

Affine = npt.NDArray[np.float64]

_LPS = axcodes2ornt(("L", "P", "S"))
_SUPERIOR = 2
# How far the corners of a label's grid may lie from those of its scan, as a fraction of the smallest spacing.
_GRID_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """The original grid of the input: everything needed to write a mask back on it."""

    shape: tuple[int, int, int]
    """Number of voxels along the input's axes `[i, j, k]`."""
    affine: Affine
    """4x4, from the index (i, j, k) to world mm (RAS+)."""
    orientation: npt.NDArray[np.float64]
    """3x2, the input's axes as a nibabel orientation: for each axis, the world axis it runs along, and 1 or -1."""
    geometry: Mapping[str, npt.NDArray[Any]]
    """The NIfTI header fields that place the voxels in the world: pixdim, units, sform, qform and their codes."""

    @property
    def assumed_orientation(self) -> str | None:
        """The axis directions, such as `LPS`, if the file does not state them and they were assumed; otherwise None."""
        if any(int(self.geometry[code]) for code in ("sform_code", "qform_code")):
            return None
        return "".join(ornt2axcodes(self.orientation))

    @classmethod
    def of(cls, shape: tuple[int, int, int], affine: Affine, geometry: Mapping[str, npt.NDArray[Any]]) -> "SourceGrid":
        """Make a grid whose orientation is derived from the affine."""
        return cls(shape, affine, io_orientation(affine), geometry)

    def to_canonical(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of `[i, j, k]` as `[z, row, col]`."""
        return np.asarray(apply_orientation(array, ornt_transform(self.orientation, _LPS)).T)

    def from_canonical(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of `[z, row, col]` as `[i, j, k]`."""
        return np.asarray(apply_orientation(array.T, ornt_transform(_LPS, self.orientation)))

    @property
    def slab_direction(self) -> int:
        """1 or -1 if the slowest axis k runs toward superior or inferior, so that a slab is a slice; otherwise 0."""
        axis, sign = self.orientation[2]
        return int(sign) if axis == _SUPERIOR else 0

    def slabs_before(self, first: int, stop: int) -> int:
        """Return how many slabs along k must have been read for the canonical slices `[first, stop)` to be valid."""
        slabs = self.shape[2]
        needed = {1: stop, -1: slabs - first, 0: slabs}[self.slab_direction]
        return min(needed, slabs) if stop > first else 0

    def batches(self, size: int) -> Iterator[tuple[slice, int]]:
        """Yield batches of canonical slices in the order in which they are stored.

        Args:
            size: Number of slices per batch.

        Yields:
            The slices `[0, size)`, `[size, 2 size)` and so on, or from the head downward if the grid begins there, each
            with `slabs_before` them.
        """
        slices = CanonicalGrid.of(self).shape[0]
        starts = range(0, slices, size)
        for first in starts if self.slab_direction >= 0 else reversed(starts):
            stop = min(first + size, slices)
            yield slice(first, stop), self.slabs_before(first, stop)


@dataclass(frozen=True, eq=False)
class CanonicalGrid:
    """The grid of a scan or of its labels in the canonical frame."""

    shape: tuple[int, ...]
    """Number of voxels along `[z, row, col]`."""
    affine: Affine
    """4x4, from the index (z, row, col) to world mm (RAS+)."""
    assumed_orientation: str | None = None
    """The assumed axis directions of the file, or None (see `SourceGrid`)."""

    @classmethod
    def of(cls, grid: SourceGrid) -> "CanonicalGrid":
        """Return the same grid in the canonical frame."""
        return replace(cls.from_source(grid.shape, grid.affine), assumed_orientation=grid.assumed_orientation)

    @classmethod
    def from_source(cls, shape: tuple[int, ...], affine: Affine) -> "CanonicalGrid":
        """Convert the shape `[i, j, k]` and the affine of a file to those of `[z, row, col]`."""
        to_lps = ornt_transform(io_orientation(affine), _LPS)
        lps_affine: Affine = affine @ inv_ornt_aff(to_lps, shape)
        z, row, col = (shape[int(axis)] for axis in np.argsort(to_lps[:, 0])[::-1])
        return cls((z, row, col), lps_affine[:, [2, 1, 0, 3]])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance in mm between neighbors along z, row and col."""
        z, row, col = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(row), float(col)


def check_same_grid(labels: CanonicalGrid, scan: CanonicalGrid, shown: str) -> None:
    """Raise InputError if labels, named `shown` in the message, do not lie on the grid of their scan."""
    if labels.shape != scan.shape:
        sentence = f"has shape {labels.shape}, but the scan has {scan.shape}; use the labels of this scan"
        raise InputError(f"{shown}: {sentence}", code="E_GRID")
    distance = corner_distance_mm(labels.affine, scan.affine, scan.shape)
    if distance > _GRID_TOLERANCE * min(scan.spacing_mm):
        sentence = f"lies {distance:.3g} mm off the grid of the scan; use the labels of this scan"
        raise InputError(f"{shown}: {sentence}", code="E_GRID")
