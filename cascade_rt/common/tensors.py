"""What passes in and out of the two stages: the names, types and shapes that graphs, engines and manifest agree on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["stage1", "stage2"]
STAGES: tuple[Stage, ...] = get_args(Stage)
Precision = Literal["fp32", "fp16"]
"""Type a graph computes in; what it takes and returns is float32 in both."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
EnginePrecision = Literal["fp32", "fp16", "bf16"]
"""Type an engine computes in: that of its graph, or bfloat16, in which some engines run float32 graphs."""
ENGINE_PRECISIONS: tuple[EnginePrecision, ...] = get_args(EnginePrecision)

SIDE_MULTIPLE = 16
"""Height and width of every image are multiples of this: both networks pool four times by 2."""
SHORTEST_SIDE = 64
"""Shortest height and width that the exported graphs take, in pixels."""
LONGEST_SIDE = 2048
"""Longest height and width that the exported graphs take, in pixels."""
SLICES_PER_BATCH = 4
"""Slices that stage 1 takes at once on a GPU."""
CROPS_PER_BATCH = 8
"""Crops that stage 2 takes at once on a GPU."""
GPU_BATCH: Mapping[Stage, int] = {"stage1": SLICES_PER_BATCH, "stage2": CROPS_PER_BATCH}
"""Images that a stage takes at once on a GPU."""
CPU_BATCH: Mapping[Stage, int] = {"stage1": 1, "stage2": 4}
"""Images that a stage takes at once on a CPU in each of its streams; more cost memory and save no time
(benchmarks/batch_sizes.py)."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a stage. Axes are named; equal names have equal lengths within a stage."""

    name: str
    shape: tuple[str | int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """All that a stage takes and returns."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


PADDING_HU = -32768.0
"""What slices are padded with: it lies below every window, so that padding is 0 in the windowed image."""

_IMAGE = ("batch", 1, "height", "width")

STAGE_SPECS: dict[Stage, StageSpec] = {
    "stage1": StageSpec(
        inputs=(TensorSpec("hu", _IMAGE),),
        outputs=(
            TensorSpec("organ_prob", _IMAGE),
            TensorSpec("row_max", ("batch", "height")),
            TensorSpec("col_max", ("batch", "width")),
            TensorSpec("salient", _IMAGE),
        ),
    ),
    "stage2": StageSpec(
        inputs=(TensorSpec("salient", _IMAGE),),
        outputs=(TensorSpec("tumor_prob", _IMAGE),),
    ),
}


def padded_side(length: int, multiple: int = SIDE_MULTIPLE) -> int:
    """The shortest side of at least `length` pixels that a stage takes whose sides are multiples of `multiple`."""
    return max(SHORTEST_SIDE, -(-length // multiple) * multiple)
