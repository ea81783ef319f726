"""The score of a crop: the largest tumor probability that the cascade gives to a pixel of it."""

from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.tumor_crops.crops import Crop
from benchmarks.tumor_crops.placing import Placed
from cascade_rt.common.tensors import PADDING_HU, padded_side
from cascade_rt.config import CascadeConfig
from cascade_rt.engines import Engines
from cascade_rt.models.crop import crop as cut
from cascade_rt.models.crop import plan_mask_box


def score(
    crops: Iterable[Crop], place: Callable[[Crop], Placed], engines: Engines, config: CascadeConfig
) -> list[float]:
    """Score crops one by one.

    Stage 1 sees the frame and makes its salient image; the box is that of the crop, with the margin of the config, not
    the one that stage 1 would have chosen: the question is what stage 2 sees in a pancreas that was found.

    Args:
        crops: What to score.
        place: How a crop comes into its frame.
        engines: Both stages.
        config: That of the bundle.
    """
    return [_score(place(crop), engines, config) for crop in crops]


def _score(placed: Placed, engines: Engines, config: CascadeConfig) -> float:
    rows, cols = placed.hu.shape
    sides = (padded_side(length, config.stage1_side_multiple) for length in (rows, cols))
    frame = np.full((1, 1, *sides), PADDING_HU, dtype=np.float32)
    frame[0, 0, :rows, :cols] = np.rint(placed.hu)
    salient = engines.stage1.run({"hu": frame})["salient"][0, :, :rows, :cols]
    inside = np.zeros((rows, cols), dtype=bool)
    inside[placed.box] = True
    box = plan_mask_box(inside, config.crop)
    if box is None:
        raise ValueError("a crop must have at least one pixel")
    found = engines.stage2.run({"salient": cut(salient, box)[None]})["tumor_prob"][0, 0]
    return float(found[cut(inside, box)].max())
