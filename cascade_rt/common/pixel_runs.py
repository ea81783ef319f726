"""Run-length representation of masks, for connected components without visiting the empty voxels.

A mask has far fewer runs than voxels, so thousands of specks anywhere in a long scan take only a few megabytes, whereas
a component label image takes four bytes per voxel.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """Runs of adjacent voxels within a row, in mask order.

    Positions are flat indices into the mask padded with an empty column after each row and an empty row after each
    slice, so that no run touches another across an image edge.
    """

    starts: Places
    """`[run]`, position of the first voxel."""
    stops: Places
    """`[run]`, position after the last voxel."""
    shape: tuple[int, int, int]
    """`(z, row, col)` of the mask."""

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> "Runs":
        return Runs(self.starts[chosen], self.stops[chosen], self.shape)

    @property
    def lengths(self) -> Places:
        """Number of voxels of each run."""
        return self.stops - self.starts

    @property
    def slices(self) -> Places:
        """The z of each run."""
        return self.starts // self.slice_stride

    @property
    def rows(self) -> Places:
        """The row of each run within its slice."""
        return self.starts % self.slice_stride // self.row_stride

    @property
    def columns(self) -> tuple[Places, Places]:
        """The first column of each run, and the column after its last."""
        first = self.starts % self.row_stride
        return first, first + self.lengths

    @property
    def row_stride(self) -> int:
        """Distance in positions from one row to the next."""
        return self.shape[2] + 1

    @property
    def slice_stride(self) -> int:
        """Distance in positions from one slice to the next."""
        return (self.shape[1] + 1) * self.row_stride


def find_runs(mask: npt.NDArray[np.uint8], belongs: Callable[[npt.NDArray[np.uint8]], Pixels]) -> Runs:
    """Find the runs of the selected labels.

    Args:
        mask: `[z, row, col]`, labels.
        belongs: Maps label rows `[row, col]` to a boolean array of the selected pixels. Called only with rows that are
            not all 0.
    """
    slices, rows, cols = mask.shape
    none = Runs(np.zeros(0, np.int64), np.zeros(0, np.int64), (slices, rows, cols))
    edges = [none.starts]
    for index, image in enumerate(mask):
        if image.max():
            seen = np.flatnonzero(image.any(axis=1))
            row, behind = np.divmod(_edges(belongs(image[seen])), none.row_stride)
            edges.append(index * none.slice_stride + seen[row] * none.row_stride + behind)
    found = np.concatenate(edges)
    return Runs(found[::2], found[1::2], none.shape)


@dataclass(frozen=True, eq=False, slots=True)
class Peaks:
    """The maximum value in each of a set of runs, in mask order."""

    starts: Places
    """`[run]`, position of the first voxel, as in `Runs`."""
    values: npt.NDArray[np.float32]
    """`[run]`."""

    @classmethod
    def joined(cls, parts: Iterable["Peaks"]) -> "Peaks":
        """Concatenate the peaks of several parts of a mask."""
        none = cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        both = [none, *parts]
        starts = np.concatenate([part.starts for part in both])
        order = np.argsort(starts, kind="stable")
        return cls(starts[order], np.concatenate([part.values for part in both])[order])

    def of(self, runs: Runs) -> npt.NDArray[np.float32]:
        """Look up the peaks `[run]` of runs, all of which must be contained in this object."""
        return self.values[np.searchsorted(self.starts, runs.starts)]


def find_peaks(
    pixels: Pixels, values: npt.NDArray[np.floating[Any]], corner: tuple[int, int, int], shape: tuple[int, ...]
) -> Peaks:
    """Find the maximum value in each run of a part of a slice.

    Args:
        pixels: `[row, col]`, the pixels of the runs. The rest of the slice must not contain any.
        values: `[row, col]`.
        corner: `(z, row, col)` of the first pixel of this part.
        shape: `(z, row, col)` of the mask.
    """
    rows, cols = pixels.shape
    row, col = np.divmod(_edges(pixels), cols + 1)
    ends = row * cols + col
    peaks = np.zeros(0)
    if len(ends):
        peaks = np.maximum.reduceat(np.append(values[:rows, :cols].ravel(), -np.inf), ends)[::2]
    slices, all_rows, all_cols = shape
    grid = Runs(np.zeros(0, np.int64), np.zeros(0, np.int64), (slices, all_rows, all_cols))
    z, first_row, first_col = corner
    starts = z * grid.slice_stride + (first_row + row[::2]) * grid.row_stride + first_col + col[::2]
    return Peaks(starts.astype(np.int64), peaks.astype(np.float32))


def touching(runs: Runs, others: Runs, *, across_slices: bool = True) -> tuple[Places, Places]:
    """Return the index pairs of runs and other runs that share a face, an edge or a corner.

    Args:
        runs: Runs of a mask.
        others: Other runs of the same mask.
        across_slices: Whether voxels of adjacent slices can touch.

    Returns:
        `[pair]` indices into `runs`, and `[pair]` indices into `others`.
    """
    return _pairs(runs, others, product((-1, 0, 1) if across_slices else (0,), (-1, 0, 1)))


def connected(runs: Runs, *, across_slices: bool = True) -> tuple[int, npt.NDArray[np.intp]]:
    """Find connected components, whose voxels share a face, an edge or a corner.

    Args:
        runs: Runs of a mask.
        across_slices: Whether voxels of adjacent slices can touch.

    Returns:
        The number of components, and `[run]`, the component of each run, numbered in mask order.
    """
    from scipy.sparse import coo_array, csgraph

    if not len(runs):
        return 0, np.zeros(0, dtype=np.intp)
    # Half of the directions suffice because touching is symmetric.
    steps = ((0, 1), (1, -1), (1, 0), (1, 1)) if across_slices else ((0, 1),)
    ends = _pairs(runs, runs, steps)
    graph = coo_array((np.ones(len(ends[0]), dtype=np.bool_), ends), shape=(len(runs), len(runs)))
    count, piece = csgraph.connected_components(graph, directed=False)
    return int(count), piece.astype(np.intp)


def erase(mask: npt.NDArray[np.uint8], runs: Runs) -> None:
    """Set all voxels of the given runs to 0, in place."""
    places = (runs.slices, runs.rows, *runs.columns)
    for index, row, first, behind in zip(*(place.tolist() for place in places), strict=True):
        mask[index, row, first:behind] = 0


def _pairs(runs: Runs, others: Runs, steps: Iterable[tuple[int, int]]) -> tuple[Places, Places]:
    """Return the index pairs of runs that touch at any of the given `(slice, row)` offsets."""
    pairs = [_pairs_at(runs, others, z * runs.slice_stride + row * runs.row_stride) for z, row in steps]
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return one, other


def _pairs_at(runs: Runs, others: Runs, step: int) -> tuple[Places, Places]:
    """Return the index pairs of runs, shifted by `step`, and others that overlap or directly adjoin them."""
    first = np.searchsorted(others.stops, runs.starts + step, side="left")
    behind = np.searchsorted(others.starts, runs.stops + step, side="right")
    counts = behind - first
    before = np.cumsum(counts) - counts
    within = np.arange(counts.sum()) - np.repeat(before, counts)
    return np.repeat(np.arange(len(runs)), counts), np.repeat(first, counts) + within


def _edges(pixels: Pixels) -> npt.NDArray[np.intp]:
    """Return the alternating start and stop positions of runs in `[row, col]`, with an empty column after each row."""
    rows, cols = pixels.shape
    between = np.zeros((rows, cols + 1), dtype=np.bool_)
    between[:, 0], between[:, -1] = pixels[:, 0], pixels[:, -1]
    np.not_equal(pixels[:, 1:], pixels[:, :-1], out=between[:, 1:-1])
    return np.flatnonzero(between)
