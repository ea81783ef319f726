"""Numbers that may be said of a handful of runs: percentiles, and how many times as fast one arm is as another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_RUNS = {50: 1, 90: 10, 99: 100}
"""Runs that a percentile needs: with fewer it would be the slowest run under another name."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where runs lie, in seconds; a percentile is None where there are too few runs for it."""

    runs: int
    p50: float
    p90: float | None
    p99: float | None
    fastest: float
    slowest: float


def spread(seconds: Sequence[float]) -> Spread:
    """Summarise at least one run."""
    return Spread(
        runs=len(seconds),
        p50=float(np.median(seconds)),
        p90=percentile(seconds, 90),
        p99=percentile(seconds, 99),
        fastest=min(seconds),
        slowest=max(seconds),
    )


def percentile(seconds: Sequence[float], percent: int) -> float | None:
    """A percentile of `FEWEST_RUNS`, or None where there are too few runs; linear between neighbouring runs."""
    return None if len(seconds) < FEWEST_RUNS[percent] else float(np.percentile(seconds, percent))


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast as a baseline."""

    ratio: float
    """Geometric mean of the ratios of all pairs."""
    low: float
    """Lower end of the interval; NaN with a single pair."""
    high: float
    pairs: int


def paired_ratio(baseline: Sequence[float], seconds: Sequence[float], *, level: float = 0.95) -> Ratio:
    """Compare runs of the same round and scan, so that what slows the machine down for a while meets both.

    The interval is Student's t on the logarithms of the ratios. Unlike a bootstrap it stays honest with three pairs.

    Args:
        baseline: Seconds of the baseline.
        seconds: Seconds of the other, run by run.
        level: How often such an interval holds the true ratio.

    Raises:
        ValueError: There are no runs, or not equally many.
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
