"""The shapes that TensorRT engines are made for.

An engine reserves memory for the largest shape of a profile and is fastest at its optimum, so there are two: one for
what nearly every scan has, in full batches, and one for whatever else the stages promise to take, one image at a time.
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
"""Height and width of a pancreas in its slice as kernels are chosen for it, in pixels; any other works too."""

ImageShape = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """A range of input shapes `[batch, 1, height, width]`, and the one that kernels are chosen for."""

    smallest: ImageShape
    usual: ImageShape
    largest: ImageShape

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an image of this shape lies in the range."""
        return lies_between(self.smallest, shape, self.largest)


def lies_between(smallest: tuple[int, ...], shape: tuple[int, ...], largest: tuple[int, ...]) -> bool:
    """Whether a shape has the axes of two others and each length lies between theirs, both ends included."""
    return len(shape) == len(smallest) and all(
        low <= length <= high for low, length, high in zip(smallest, shape, largest, strict=True)
    )


def shape_profiles(stage: Stage, config: CascadeConfig) -> tuple[ShapeProfile, ShapeProfile]:
    """The profile of usual images in full batches, and that of single images of any size.

    Stage 1 sees whole slices. Stage 2 sees crops: boxes of a pancreas with the margin, grown to the grid. It sees whole
    slices too, where a slice has no organ or there is no stage 1.
    """
    batch = SLICES_PER_BATCH if stage == "stage1" else CROPS_PER_BATCH
    whole = SLICE_SIDE if stage == "stage1" else _on_grid(SLICE_SIDE, config)
    crops = stage == "stage2" and config.stage1 != "none"
    # On average a side of a box moves half a cell outward to the grid of its corners.
    around = config.crop.margin + config.crop.corner_grid // 2
    usual = _on_grid(ORGAN_SIDE + 2 * around, config) if crops else whole
    smallest = _square(1, SHORTEST_SIDE)
    return (
        ShapeProfile(smallest, _square(batch, min(usual, whole)), _square(batch, whole)),
        ShapeProfile(smallest, _square(1, whole), _square(1, LONGEST_SIDE)),
    )


def _on_grid(side: int, config: CascadeConfig) -> int:
    """The side of a box that holds `side` pixels, and that the engines take."""
    grown, _ = grid_size((side, side), config.crop)
    return min(padded_side(grown), LONGEST_SIDE)


def _square(batch: int, side: int) -> ImageShape:
    return batch, 1, side, side
