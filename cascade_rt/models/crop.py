"""The glue between the stages: from the organ's location to crops, and from crops back to the frame.

Pure numpy, and the only code between the two networks. Training, the PyTorch baseline and every engine use it. If both
stages share a GPU, `crop` has a counterpart there.

The tightest box around all foreground pixels of a slice is determined exactly by the row and column maxima of the
probability map, so only these two short vectors have to be copied from the device.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from cascade_rt.config import CropConfig

FloatArray = npt.NDArray[np.floating[Any]]
Patch = TypeVar("Patch")
"""A crop, on the host or on a device."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels: rows `[row, row + height)` and columns `[col, col + width)`.

    It starts inside the image. It extends beyond the image, below or to the right, only if the image is too small.
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """The index of the box in a `[row, col]` array; numpy clips it at the edge of the array."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    def inside(self, image_shape: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the part of the box that lies inside the image."""
        rows, cols = image_shape
        return min(self.height, rows - self.row), min(self.width, cols - self.col)


def tightest_box(row_max: FloatArray, col_max: FloatArray, threshold: float) -> Box | None:
    """Return the tightest box around all pixels whose value is at least `threshold`, or None if there are none.

    Args:
        row_max: `[row]`, the maximum of each row.
        col_max: `[col]`, the maximum of each column.
        threshold: Minimum value of foreground pixels.
    """
    rows, cols = np.flatnonzero(row_max >= threshold), np.flatnonzero(col_max >= threshold)
    if rows.size == 0 or cols.size == 0:
        return None
    return Box(
        row=int(rows[0]),
        col=int(cols[0]),
        height=int(rows[-1] - rows[0]) + 1,
        width=int(cols[-1] - cols[0]) + 1,
    )


def enlarge(box: Box, margins: Sequence[int], image_shape: tuple[int, int]) -> Box:
    """Add margins above, below, left and right, clipped to the image."""
    above, below, left, right = (int(margin) for margin in margins)
    row, height = _enlarge_side(box.row, box.height, above, below, image_shape[0])
    col, width = _enlarge_side(box.col, box.width, left, right, image_shape[1])
    return Box(row, col, height, width)


def align(box: Box, corner_grid: int) -> Box:
    """Move the sides of a box outward to multiples of `corner_grid`, beyond the image if need be."""
    row, height = _align_side(box.row, box.height, corner_grid)
    col, width = _align_side(box.col, box.width, corner_grid)
    return Box(row, col, height, width)


def grow(box: Box, size: tuple[int, int], image_shape: tuple[int, int], corner_grid: int = 1) -> Box:
    """Grow a box to `size` with real image context: evenly on both sides, shifted to stay inside the image.

    If the image is smaller than `size`, the box starts at 0 and extends beyond the image; `crop` fills that part with
    0.

    Args:
        box: The box.
        size: Target height and width.
        image_shape: Height and width of the image.
        corner_grid: The box grows above and left by a multiple of this, and by the rest below and right.
    """
    row = _grow_start(box.row, box.height, size[0], image_shape[0], corner_grid)
    col = _grow_start(box.col, box.width, size[1], image_shape[1], corner_grid)
    return Box(row, col, *size)


def grid_size(size: tuple[int, int], config: CropConfig) -> tuple[int, int]:
    """Round a height and a width up to the size grid."""
    return _grid_side(size[0], config), _grid_side(size[1], config)


def full_box(image_shape: tuple[int, int], config: CropConfig) -> Box:
    """Return the box of the whole image, rounded up to the size grid."""
    return Box(0, 0, *grid_size(image_shape, config))


def plan_box(
    row_max: FloatArray, col_max: FloatArray, config: CropConfig, margins: Sequence[int] | None = None
) -> Box | None:
    """Plan the crop of one slice: tightest box, margin, clip, snap corners to their grid, grow to the size grid.

    One pixel more or less at the edge of the organ moves the box only if it crosses a line of the corner grid, so two
    engines that round differently almost always see the same crop.

    Args:
        row_max: `[row]`, the maximum of the organ probability in each row of the image.
        col_max: `[col]`, the same for each column.
        config: Threshold, margin, grids and the policy for slices without organ.
        margins: Pixels to add above, below, left and right; None: `config.margin` on each side.

    Returns:
        The box, or None if the slice has no organ and the policy is to skip it.
    """
    image_shape = (row_max.shape[0], col_max.shape[0])
    box = tightest_box(row_max, col_max, config.threshold)
    if box is None:
        return full_box(image_shape, config) if config.empty_policy == "full" else None
    box = enlarge(box, (config.margin,) * 4 if margins is None else margins, image_shape)
    box = align(box, config.corner_grid)
    return grow(box, grid_size(box.size, config), image_shape, config.corner_grid)


def plan_mask_box(mask: npt.NDArray[Any], config: CropConfig, margins: Sequence[int] | None = None) -> Box | None:
    """Plan the crop of one slice from a binary mask `[row, col]`, such as the true organ in training."""
    foreground = mask.astype(np.float32)
    return plan_box(foreground.max(axis=1), foreground.max(axis=0), config, margins)


def crop(image: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    """Crop a box from `[..., row, col]` to a new array `[..., height, width]`, 0 outside the image."""
    *leading, rows, cols = image.shape
    height, width = box.inside((rows, cols))
    out = np.zeros((*leading, *box.size), dtype=image.dtype)
    out[..., :height, :width] = image[(..., *box.slices)]
    return out


def paste(patch: npt.NDArray[Any], box: Box, image: npt.NDArray[Any]) -> None:
    """Write a crop `[..., height, width]` to its position in `image` `[..., row, col]`, modifying it in place."""
    target = image[(..., *box.slices)]
    target[...] = patch[..., : target.shape[-2], : target.shape[-1]]


@dataclass(frozen=True, eq=False, slots=True)
class CropBatch(Generic[Patch]):
    """Crops of equal size, ready for stage 2."""

    slices: tuple[int, ...]
    """The index of the slice each crop comes from."""
    boxes: tuple[Box, ...]
    """The box of each crop."""
    crops: tuple[Patch, ...]


@dataclass(eq=False, slots=True)
class CropQueue(Generic[Patch]):
    """Collects crops and returns them in batches of equal crop size, so that few are pending at any time."""

    batch_size: int
    _waiting: dict[tuple[int, int], list[tuple[int, Box, Patch]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def put(self, index: int, box: Box, patch: Patch) -> CropBatch[Patch] | None:
        """Add the crop of slice `index`, on host or device. Return the batch if this completes one, else None."""
        waiting = self._waiting.setdefault(box.size, [])
        waiting.append((index, box, patch))
        return self._take(box.size) if len(waiting) == self.batch_size else None

    def drain(self) -> Iterator[CropBatch[Patch]]:
        """Yield the remaining crops, one batch for each size."""
        for size in list(self._waiting):
            yield self._take(size)

    def _take(self, size: tuple[int, int]) -> CropBatch[Patch]:
        indices, boxes, crops = zip(*self._waiting.pop(size), strict=True)
        return CropBatch(indices, boxes, crops)


def _enlarge_side(start: int, length: int, before: int, behind: int, image_length: int) -> tuple[int, int]:
    first, last = max(0, start - before), min(image_length, start + length + behind)
    return first, last - first


def _grid_side(length: int, config: CropConfig) -> int:
    return max(config.min_side, _round_up(length, config.grid))


def _align_side(start: int, length: int, step: int) -> tuple[int, int]:
    first = start // step * step
    return first, _round_up(start + length, step) - first


def _grow_start(start: int, length: int, size: int, image_length: int, step: int) -> int:
    before = _round_up((size - length) // 2, step)
    return max(0, min(start - before, image_length - size))


def _round_up(length: int, step: int) -> int:
    return -(-length // step) * step
