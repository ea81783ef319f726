"""Is the answer to an input the same in every place of a batch, whatever its neighbours are?

TensorRT has shipped engines that are right for the first row of a batch and wrong for the others, and whose rows leak
into each other (NVIDIA/TensorRT issues 4853 and 4813): always the same wrong answer, so that running twice shows
nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cascade_rt.common.tensors import CROPS_PER_BATCH, SHORTEST_SIDE, SLICES_PER_BATCH, STAGE_SPECS, Stage
from cascade_rt.engines.base import Array, StageEngine

LARGEST_BATCH: Mapping[Stage, int] = {"stage1": SLICES_PER_BATCH, "stage2": CROPS_PER_BATCH}
SIDES: Mapping[Stage, Sequence[tuple[int, int]]] = {
    "stage1": ((SHORTEST_SIDE, SHORTEST_SIDE), (256, 192)),
    "stage2": ((SHORTEST_SIDE, SHORTEST_SIDE), (96, 160), (256, 128)),
}
SEED = 7


def slot_errors(engine: StageEngine) -> float:
    """The largest difference between the answers to one input, over sizes, batches and places in them.

    Each row of a batch of different images is compared with its answer alone, which is the same as asking that equal
    rows have equal answers, that permuted rows have permuted answers, and that neighbours do not leak.

    Returns:
        The difference; NaN where an answer is not a number.
    """
    worst = 0.0
    for side in SIDES[engine.stage]:
        images = _images(engine.stage, LARGEST_BATCH[engine.stage], side)
        alone = [_run(engine, image[None]) for image in images]
        for order in _orders(len(images)):
            together = _run(engine, images[order])
            for place, index in enumerate(order):
                worst = float(np.maximum(worst, _difference(together, place, alone[index])))
    return worst


def _orders(count: int) -> list[list[int]]:
    """Which image stands where: as they come, reversed, two of them, and one in all places."""
    forward = list(range(count))
    return [forward, forward[::-1], [1, 0], [0] * count]


def _run(engine: StageEngine, images: Array) -> dict[str, Array]:
    return engine.run({STAGE_SPECS[engine.stage].inputs[0].name: np.ascontiguousarray(images)})


def _difference(together: Mapping[str, Array], place: int, alone: Mapping[str, Array]) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.max([np.abs(together[name][place] - alone[name][0]).max() for name in alone]))


def _images(stage: Stage, count: int, side: tuple[int, int]) -> Array:
    """Different images `[count, 1, row, col]` in the range of a stage's input: waves and noise."""
    random = np.random.default_rng(SEED)
    rows, cols = np.ogrid[: side[0], : side[1]]
    waves = np.stack([np.sin(rows / (5 + 3 * index)) * np.cos(cols / (9 + 2 * index)) for index in range(count)])
    images = (0.5 + 0.4 * waves + 0.1 * random.standard_normal(waves.shape))[:, None]
    return (images * 340 - 100 if stage == "stage1" else images).astype(np.float32)
