"""How well scores tell two groups apart: area under the ROC curve, sensitivity, intervals over patients."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95
FALSE_ALARMS = 0.1


def area_under_roc(ill: Scores, healthy: Scores) -> float:
    """The chance that one of the ill has a higher score than one of the healthy; equal scores count half.

    Mann-Whitney's U over the number of pairs.
    """
    ordered = np.sort(healthy)
    below, not_above = (np.searchsorted(ordered, ill, side=side) for side in ("left", "right"))
    return float((below.sum() + not_above.sum()) / (2 * len(ill) * len(healthy)))


def sensitivity_at(ill: Scores, healthy: Scores, false_alarms: float = FALSE_ALARMS) -> float:
    """Share of the ill above the threshold that this share of the healthy, or fewer, exceeds."""
    allowed = min(int(false_alarms * len(healthy)), len(healthy) - 1)
    threshold = np.sort(healthy)[::-1][allowed]
    return float(np.mean(ill > threshold))


def by_patient(names: Sequence[str], scores: Sequence[float]) -> dict[str, list[float]]:
    """The scores of each patient's crops."""
    grouped: dict[str, list[float]] = {}
    for name, value in zip(names, scores, strict=True):
        grouped.setdefault(name, []).append(value)
    return grouped


def figures(
    ill: Mapping[str, Sequence[float]], healthy: Mapping[str, Sequence[float]], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """All figures of two groups of patients with 95 % bootstrap intervals, plain values.

    Patients of each group are drawn with replacement, and bring all of their crops along. A patient's score is the mean
    of those of its crops; their maximum would grow with their number, and the groups differ in that.

    Args:
        ill: Scores of the crops of each patient with a tumor.
        healthy: The same of those without.
        seed: Of the bootstrap.
    """
    measures: dict[str, Callable[[Sequence[Scores], Sequence[Scores]], float]] = {
        "area_crops": lambda a, b: area_under_roc(np.concatenate(a), np.concatenate(b)),
        "area_patients": lambda a, b: area_under_roc(_means(a), _means(b)),
        "sensitivity_crops": lambda a, b: sensitivity_at(np.concatenate(a), np.concatenate(b)),
    }
    groups = [[np.asarray(scores, dtype=np.float64) for scores in group.values()] for group in (ill, healthy)]
    random = np.random.default_rng(seed)
    drawn = [
        [[group[index] for index in random.integers(0, len(group), len(group))] for group in groups]
        for _ in range(RESAMPLES)
    ]
    found = {}
    for name, measure in measures.items():
        low, high = np.quantile([measure(*pair) for pair in drawn], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found[name] = {"value": measure(*groups), "interval_95": [float(low), float(high)]}
    return found


def _means(group: Sequence[Scores]) -> Scores:
    return np.array([scores.mean() for scores in group])
