"""Paired differences of two engines on the same cases, with bootstrap intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
"""Number of bootstrap resamples."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Value minus baseline over the same cases."""

    count: int
    """Number of cases."""
    mean: float
    """Mean difference; NaN without any case."""
    interval: tuple[float, float]
    """95 % confidence interval of the mean; NaN with fewer than two cases."""
    worst_case: str | None
    """The case with the lowest difference; None without any case."""
    worst: float
    """The difference of the worst case; NaN without any case."""


def paired_difference(values: Mapping[str, float], baseline: Mapping[str, float], *, seed: int = 0) -> PairedDifference:
    """Compare two values of each case, such as its Dice with two engines.

    Args:
        values: Value of each case.
        baseline: Baseline value of the same cases.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: The cases are not the same.
    """
    if values.keys() != baseline.keys():
        raise ValueError(f"cases must be the same, got {sorted(values)} and {sorted(baseline)}")
    differences = {case: value - baseline[case] for case, value in values.items()}
    if not differences:
        return PairedDifference(0, math.nan, (math.nan, math.nan), None, math.nan)
    worst = min(differences, key=lambda case: differences[case])
    return PairedDifference(
        count=len(differences),
        mean=float(np.mean(list(differences.values()))),
        interval=bootstrap_interval(list(differences.values()), seed=seed),
        worst_case=worst,
        worst=differences[worst],
    )


def bootstrap_interval(
    values: Sequence[float], *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return a confidence interval of the mean by the percentile bootstrap over cases, which assumes no distribution.

    With few cases the interval is somewhat too narrow. The same values and seed give the same interval. Both ends are
    NaN for fewer than two values.
    """
    if len(values) < 2:
        return math.nan, math.nan
    random, sample = np.random.default_rng(seed), np.asarray(values, dtype=np.float64)
    means = [sample[random.integers(0, len(sample), len(sample))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
