"""The shapes that TensorRT engines are built for.

An engine reserves memory for the largest shape of a profile and is fastest at its optimum. There are therefore two
profiles: one for the sizes of nearly every scan, in full batches, and one for all other sizes that the stages must
accept, one image at a time.
"""

from dataclasses import dataclass

from cascade_rt.common.tensors import (
    CROPS_PER_BATCH,
    LONGEST_SIDE,
    SHORTEST_SIDE,
    SLICES_PER_BATCH,
    Stage,
    padded_side,
)
from cascade_rt.config import CascadeConfig
from cascade_rt.models.crop import grid_size

SLICE_SIDE = 512
"""Height and width of nearly every CT slice, in pixels."""
ORGAN_SIDE = 112
"""Height and width of a pancreas in a slice for which kernels are tuned, in pixels. Other sizes work too."""

ImageShape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """A range of input shapes `[batch, 1, height, width]`, and the shape for which kernels are tuned."""

    smallest: ImageShape
    usual: ImageShape
    largest: ImageShape

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Return whether a shape lies in the range."""
        return lies_between(self.smallest, shape, self.largest)


def lies_between(smallest: tuple[int, ...], shape: tuple[int, ...], largest: tuple[int, ...]) -> bool:
    """Return whether a shape has as many axes as two others, with each length between theirs (inclusive)."""
    return len(shape) == len(smallest) and all(
        low <= length <= high for low, length, high in zip(smallest, shape, largest, strict=True)
    )


def shape_profiles(stage: Stage, config: CascadeConfig) -> tuple[ShapeProfile, ShapeProfile]:
    """Return one profile for images of usual size in full batches, and one for single images of any size.

    Stage 1 takes whole slices. Stage 2 takes crops: the box of a pancreas with the margin, grown to the grid. It also
    takes whole slices if a slice has no organ or there is no stage 1.
    """
    batch = SLICES_PER_BATCH if stage == "stage1" else CROPS_PER_BATCH
    whole = SLICE_SIDE if stage == "stage1" else _on_grid(SLICE_SIDE, config)
    crops = stage == "stage2" and config.stage1 != "none"
    # On average, each side of a box moves outward by half a grid cell when the corners snap to the grid.
    around = config.crop.margin + config.crop.corner_grid // 2
    usual = _on_grid(ORGAN_SIDE + 2 * around, config) if crops else whole
    smallest = _square(1, SHORTEST_SIDE)
    return (
        ShapeProfile(smallest, _square(batch, min(usual, whole)), _square(batch, whole)),
        ShapeProfile(smallest, _square(1, whole), _square(1, LONGEST_SIDE)),
    )


def _on_grid(side: int, config: CascadeConfig) -> int:
    """Return the side of the box that holds `side` pixels and has a size that the engines accept."""
    grown, _ = grid_size((side, side), config.crop)
    return min(padded_side(grown), LONGEST_SIDE)


def _square(batch: int, side: int) -> ImageShape:
    return batch, 1, side, side
