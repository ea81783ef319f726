"""Statistics for a small number of runs: percentiles, and speed-ups between arms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_RUNS = {50: 1, 90: 10, 99: 100}
"""Minimum number of runs for each percentile; with fewer it would just be the slowest run."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Distribution of run times in seconds. A percentile is None if there are too few runs for it."""

    runs: int
    p50: float
    p90: float | None
    p99: float | None
    fastest: float
    slowest: float


def spread(seconds: Sequence[float]) -> Spread:
    """Summarize the times of at least one run."""
    return Spread(
        runs=len(seconds),
        p50=float(np.median(seconds)),
        p90=percentile(seconds, 90),
        p99=percentile(seconds, 99),
        fastest=min(seconds),
        slowest=max(seconds),
    )


def percentile(seconds: Sequence[float], percent: int) -> float | None:
    """Return a percentile listed in `FEWEST_RUNS`, interpolated linearly, or None if there are too few runs."""
    return None if len(seconds) < FEWEST_RUNS[percent] else float(np.percentile(seconds, percent))


@dataclass(frozen=True, slots=True)
class Ratio:
    """Speed-up over a baseline."""

    ratio: float
    """Geometric mean of the ratios of all pairs."""
    low: float
    """Lower end of the confidence interval; NaN with a single pair."""
    high: float
    """Upper end of the confidence interval; NaN with a single pair."""
    pairs: int


def paired_ratio(baseline: Sequence[float], seconds: Sequence[float], *, level: float = 0.95) -> Ratio:
    """Return the speed-up over paired runs of the same round and scan, so that temporary slowdowns affect both.

    The interval is Student's t on the logarithms of the ratios. Unlike a bootstrap, it remains valid with three pairs.

    Args:
        baseline: Seconds of each baseline run.
        seconds: Seconds of the paired run of the other arm.
        level: Confidence level of the interval.

    Raises:
        ValueError: There are no runs, or their numbers differ.
    """
    from scipy.special import stdtrit

    if not baseline or len(baseline) != len(seconds):
        raise ValueError(f"runs must come in pairs, got {len(baseline)} and {len(seconds)}")
    logs = np.log(np.asarray(baseline, dtype=np.float64) / np.asarray(seconds, dtype=np.float64))
    mean, pairs = float(logs.mean()), len(logs)
    if pairs == 1:
        return Ratio(math.exp(mean), math.nan, math.nan, pairs)
    half = float(stdtrit(pairs - 1, (1 + level) / 2) * logs.std(ddof=1) / math.sqrt(pairs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), pairs)
