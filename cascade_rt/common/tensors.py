"""Inputs and outputs of the two stages: names, types and shapes shared by graphs, engines and manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["stage1", "stage2"]
STAGES: tuple[Stage, ...] = get_args(Stage)
Precision = Literal["fp32", "fp16"]
"""Data type a graph computes in; its inputs and outputs are float32 in either case."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
EnginePrecision = Literal["fp32", "fp16", "bf16"]
"""Data type an engine computes in: that of its graph, or bfloat16, which some engines use for float32 graphs."""
ENGINE_PRECISIONS: tuple[EnginePrecision, ...] = get_args(EnginePrecision)

SIDE_MULTIPLE = 16
"""Height and width of every image are multiples of this, because both networks pool four times by 2."""
SHORTEST_SIDE = 64
"""Minimum height and width that the exported graphs accept, in pixels."""
LONGEST_SIDE = 2048
"""Maximum height and width that the exported graphs accept, in pixels."""
SLICES_PER_BATCH = 4
"""Stage-1 batch size on a GPU."""
CROPS_PER_BATCH = 8
"""Stage-2 batch size on a GPU."""
GPU_BATCH: Mapping[Stage, int] = {"stage1": SLICES_PER_BATCH, "stage2": CROPS_PER_BATCH}
"""Batch size of each stage on a GPU."""
CPU_BATCH: Mapping[Stage, int] = {"stage1": 1, "stage2": 4}
"""Batch size of each stage in each stream on a CPU; larger batches cost memory and save no time
(benchmarks/batch_sizes.py)."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a stage. Axes are named; axes of the same name have the same length within a stage."""

    name: str
    shape: tuple[str | int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """All inputs and outputs of a stage."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


PADDING_HU = -32768.0
"""Padding value of slices: below every window, so that padding is 0 in the windowed image."""

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
    """Round `length` up to the next valid side in pixels: a multiple of `multiple`, at least `SHORTEST_SIDE`."""
    return max(SHORTEST_SIDE, -(-length // multiple) * multiple)
