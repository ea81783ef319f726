"""Validation: Dice on held-out cases after each epoch."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import numpy.typing as npt

from cascade_rt.common.labels import LOWEST_LABEL
from cascade_rt.common.metrics import Confusion, average_scores, confusion
from cascade_rt.config import CascadeConfig
from cascade_rt.data.slices import Case
from cascade_rt.engines import Engines
from cascade_rt.engines.pytorch import PyTorchEngine
from cascade_rt.errors import EngineError, UsageError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.results.islands import keep_islands
from cascade_rt.run.scan_run import segment_voxels

DICE = ("organ_dice", "tumor_dice")
"""Keys of the result of `validate` and of the history of a run."""


def hold_out(cases: Sequence[Case], count: int) -> tuple[Sequence[Case], Sequence[Case]]:
    """Split training cases into those to train on and the last `count`, to validate on.

    Raises:
        UsageError: No case would be left to train on.
    """
    if count >= len(cases):
        raise UsageError(f"{count} of {len(cases)} training cases cannot be held out; leave at least one to train on")
    return cases[: len(cases) - count], cases[len(cases) - count :]


def validate(model: CascadeModel, cases: Sequence[Case]) -> dict[str, float]:
    """Segment whole cases as the exported cascade would, and compare them with their labels.

    The mode of the model is restored, and no random numbers are drawn.

    Returns:
        Mean Dice over cases: `organ_dice` of the organ including tumor, over cases with organ, and `tumor_dice` over
        cases with tumor. A class that no case contains, or that the cascade does not segment, is omitted.

    Raises:
        EngineError: Training has diverged, so that the networks return NaN or infinite values.
    """
    was_training = model.training
    try:
        engines = Engines(PyTorchEngine(model, "stage1"), PyTorchEngine(model, "stage2"))
        counts = [_count(_segment(engines, model.config, case), case.label) for case in cases]
    except EngineError as error:
        raise EngineError(
            "the training has diverged: the networks return NaN or infinity; "
            "train again with a lower train.learning_rate"
        ) from error
    finally:
        model.train(was_training)
    sought = {"organ_dice": model.config.finds_organ, "tumor_dice": model.config.target == "tumor"}
    dice = {
        name: average_scores([case[name] for case in counts], "positive").dice.mean for name in DICE if sought[name]
    }
    return {name: mean for name, mean in dice.items() if not math.isnan(mean)}


def best_epoch(history: Sequence[Mapping[str, float | str]]) -> int | None:
    """Return the number of the epoch with the highest mean Dice (the first if tied), or None if none was validated."""
    scores = [[float(entry[name]) for name in DICE if name in entry] for entry in history]
    means = [fmean(dice) if dice else -math.inf for dice in scores]
    best = max(means, default=-math.inf)
    return None if best == -math.inf else means.index(best) + 1


def _segment(engines: Engines, config: CascadeConfig, case: Case) -> npt.NDArray[np.uint8]:
    mask = segment_voxels(engines, config, case.image, case.spacing_mm[1:]).mask
    if not case.scattered:
        keep_islands(mask, config, math.prod(case.spacing_mm) / 1000)
    return mask


def _count(mask: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8]) -> dict[str, Confusion]:
    return {
        name: confusion(mask >= lowest, label >= lowest)
        for name, lowest in zip(DICE, LOWEST_LABEL.values(), strict=True)
    }
