"""Check that the output for an input is the same at every batch position, whatever its neighbors are.

TensorRT versions have built engines that are right for the first row of a batch and wrong for the others, or whose rows
leak into each other (NVIDIA/TensorRT issues 4853 and 4813). The wrong output is always the same, so running twice does
not reveal it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cascade_rt.common.comparison import Agreement, compare
from cascade_rt.common.tensors import CROPS_PER_BATCH, SHORTEST_SIDE, SLICES_PER_BATCH, STAGE_SPECS, Stage
from cascade_rt.engines.base import Array, StageEngine

LARGEST_BATCH: Mapping[Stage, int] = {"stage1": SLICES_PER_BATCH, "stage2": CROPS_PER_BATCH}
SIDES: Mapping[Stage, Sequence[tuple[int, int]]] = {
    "stage1": ((SHORTEST_SIDE, SHORTEST_SIDE), (256, 192)),
    "stage2": ((SHORTEST_SIDE, SHORTEST_SIDE), (96, 160), (256, 128)),
}
SEED = 7


def compare_slots(engine: StageEngine) -> Agreement:
    """Compare the outputs for one input with each other, over sizes, batches and batch positions.

    Each row of a batch of different images is compared with its output when run alone. This covers three requirements:
    equal rows have equal outputs, permuted rows have permuted outputs, and neighbors do not leak.
    """
    agreement = Agreement()
    for side in SIDES[engine.stage]:
        images = _images(engine.stage, LARGEST_BATCH[engine.stage], side)
        alone = [_run(engine, image[None]) for image in images]
        for order in _orders(len(images)):
            together = _run(engine, images[order])
            for place, index in enumerate(order):
                for name, expected in alone[index].items():
                    agreement += compare(expected[0], together[name][place])
    return agreement


def _orders(count: int) -> list[list[int]]:
    """Return the image index at each batch position: in order, reversed, two images swapped, one image repeated."""
    forward = list(range(count))
    return [forward, forward[::-1], [1, 0], [0] * count]


def _run(engine: StageEngine, images: Array) -> dict[str, Array]:
    return engine.run({STAGE_SPECS[engine.stage].inputs[0].name: np.ascontiguousarray(images)})


def _images(stage: Stage, count: int, side: tuple[int, int]) -> Array:
    """Make different images `[count, 1, row, col]` of waves and noise in the input range of a stage."""
    random = np.random.default_rng(SEED)
    rows, cols = np.ogrid[: side[0], : side[1]]
    waves = np.stack([np.sin(rows / (5 + 3 * index)) * np.cos(cols / (9 + 2 * index)) for index in range(count)])
    images = (0.5 + 0.4 * waves + 0.1 * random.standard_normal(waves.shape))[:, None]
    return (images * 340 - 100 if stage == "stage1" else images).astype(np.float32)
