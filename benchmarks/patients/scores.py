"""Dice, SEN and SPE of patients in three aggregations, with bootstrap intervals over patients.

    per slice       mean over the slices that hold pancreas, each the full frame
    per case        mean over patients, each all of its slices together
    pooled          from the voxels of all patients, as if they were one image

An interval says how the figure would vary with other patients of the same kind: patients are drawn with replacement,
and each brings all of its slices along, since slices of one patient resemble one another.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.patients.cases import Mask
from cascade_rt.common.metrics import Confusion, confusion, pool
from cascade_rt.measuring.paired_difference import bootstrap_interval

METRICS = ("dice", "sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are drawn."""

    seed: int = 0
    resamples: int = 2000
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over patients."""

    value: float
    """NaN where nothing is defined."""
    interval: tuple[float, float]
    """95 % bootstrap interval over patients; NaN with fewer than two."""
    count: int
    """What the mean is over: slices, cases, or patients that are pooled."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is undefined."""
        low, high = self.interval
        return {
            "value": None if math.isnan(self.value) else self.value,
            "interval_95": None if math.isnan(low) else [low, high],
            "count": self.count,
        }


def slice_counts(found: Mask, truth: Mask) -> tuple[Confusion, ...]:
    """How two masks `[z, row, col]` meet in each slice."""
    return tuple(confusion(*pair) for pair in zip(found, truth, strict=True))


def mean_over_cases(values: Sequence[float], bootstrap: Bootstrap) -> Estimate:
    """The mean of a value of each patient; NaN values are left out."""
    defined = [value for value in values if not math.isnan(value)]
    interval = bootstrap_interval(defined, seed=bootstrap.seed, level=bootstrap.level, resamples=bootstrap.resamples)
    return Estimate(float(np.mean(defined)) if defined else math.nan, interval, len(defined))


def ratio_over_patients(
    numerators: Sequence[float], denominators: Sequence[float], bootstrap: Bootstrap
) -> tuple[float, tuple[float, float]]:
    """The sum of the numerators over that of the denominators, one of each per patient, and its interval.

    A mean over slices is such a ratio, and so is a pooled Dice. With denominators of 1 it is `mean_over_cases`.
    """
    above, below = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    value = float(above.sum() / below.sum()) if below.sum() else math.nan
    if len(above) < 2:
        return value, (math.nan, math.nan)
    random = np.random.default_rng(bootstrap.seed)
    ratios = []
    for _ in range(bootstrap.resamples):
        drawn = random.integers(0, len(above), len(above))
        if below[drawn].sum():
            ratios.append(above[drawn].sum() / below[drawn].sum())
    if not ratios:
        return value, (math.nan, math.nan)
    low, high = np.quantile(ratios, [(1 - bootstrap.level) / 2, (1 + bootstrap.level) / 2])
    return value, (float(low), float(high))


def three_aggregations(
    patients: Sequence[Sequence[Confusion]], bootstrap: Bootstrap
) -> dict[str, dict[str, dict[str, Any]]]:
    """Dice, SEN and SPE per slice, per case and pooled, as plain values.

    Args:
        patients: For each patient the counts of its slices.
        bootstrap: How intervals are drawn.
    """
    cases = [pool(slices) for slices in patients]
    return {
        "per_slice": {metric: _per_slice(patients, metric, bootstrap).to_json() for metric in METRICS},
        "per_case": {
            metric: mean_over_cases([getattr(case, metric) for case in cases if case.positive], bootstrap).to_json()
            for metric in METRICS
        },
        "pooled": {metric: _pooled(cases, metric, bootstrap).to_json() for metric in METRICS},
    }


def slices_missed(patients: Sequence[Sequence[Confusion]]) -> int:
    """Slices with pancreas in which not one voxel of it was found."""
    return sum(counts.positive > 0 and counts.true_positive == 0 for slices in patients for counts in slices)


def _per_slice(patients: Sequence[Sequence[Confusion]], metric: str, bootstrap: Bootstrap) -> Estimate:
    values = [[getattr(counts, metric) for counts in slices if counts.positive] for slices in patients]
    defined = [[value for value in of_patient if not math.isnan(value)] for of_patient in values]
    value, interval = ratio_over_patients(list(map(sum, defined)), list(map(len, defined)), bootstrap)
    return Estimate(value, interval, sum(map(len, defined)))


_POOLED: dict[str, tuple[Callable[[Confusion], int], Callable[[Confusion], int]]] = {
    "dice": (lambda c: 2 * c.true_positive, lambda c: c.positive + c.found),
    "sensitivity": (lambda c: c.true_positive, lambda c: c.positive),
    "specificity": (lambda c: c.true_negative, lambda c: c.true_negative + c.false_positive),
}


def _pooled(cases: Sequence[Confusion], metric: str, bootstrap: Bootstrap) -> Estimate:
    above, below = _POOLED[metric]
    value, interval = ratio_over_patients(list(map(above, cases)), list(map(below, cases)), bootstrap)
    return Estimate(value, interval, len(cases))
