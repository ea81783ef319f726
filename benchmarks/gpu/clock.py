"""How long runs take, side by side: several ways to compute the same take turns, so that a drift meets them all."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.gpu.deadline import NEVER, NO_TIME, Deadline
from benchmarks.gpu.lines import reason_of

Run = Callable[[], object]
"""Computes once; on a GPU it may return before the work is done."""

FEWEST, MOST = 3, 200
"""Runs in a turn, at least and at most."""
WARM_UPS = 3
"""Runs that are not counted: kernels are chosen, compiled and recorded in them."""


class Clock(Protocol):
    """Measures runs in a row."""

    def seconds(self, run: Run, count: int) -> list[float]:
        """Seconds of each of `count` runs, one right behind the other."""
        ...


class CudaClock:
    """Events around each run on the current stream of the GPU.

    The host is not awaited between runs, so what is seen is the work of the GPU, or the launching of its kernels where
    that takes longer. Whatever is timed has to use the current stream.
    """

    def seconds(self, run: Run, count: int) -> list[float]:
        """Seconds of each of `count` runs (see `Clock`)."""
        pairs = [(_event(), _event()) for _ in range(count)]
        torch.cuda.synchronize()
        for start, stop in pairs:
            start.record()
            run()
            stop.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) / 1000 for start, stop in pairs]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class WallClock:
    """The clock of the host, for work that is done when a run returns."""

    def seconds(self, run: Run, count: int) -> list[float]:
        """Seconds of each of `count` runs (see `Clock`)."""
        found = []
        for _ in range(count):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return found


@dataclass(frozen=True, slots=True)
class Turns:
    """How often and how long each takes its turn."""

    rounds: int = 7
    seconds: float = 0.5
    """What a turn is meant to take; it has between `FEWEST` and `MOST` runs."""


@dataclass(frozen=True, slots=True)
class Race:
    """What was measured."""

    rounds: Mapping[str, Sequence[Sequence[float]]]
    """For each that finished: seconds of each run, a list for each round."""
    reasons: Mapping[str, str]
    """For each that did not: why."""


def race(runs: Mapping[str, Run], clock: Clock, turns: Turns, deadline: Deadline = NEVER) -> Race:
    """Time several runs in turns; one that raises is left out from then on, and the others go on.

    Each round begins with another of them. After the deadline none is warmed up and no second round begins: those that
    are warm have one round at least.
    """
    rounds: dict[str, list[list[float]]] = {name: [] for name in runs}
    counts: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for turn in range(-1, turns.rounds):
        if turn > 0 and deadline.passed:
            break
        for name in _rotated(list(runs), turn):
            if turn < 0 and deadline.passed:
                reasons[name] = NO_TIME
            if name in reasons:
                continue
            try:
                if turn < 0:
                    counts[name] = _warm_up(runs[name], clock, turns)
                else:
                    rounds[name].append(clock.seconds(runs[name], counts[name]))
            except Exception as error:  # noqa: BLE001  out of memory, or whatever a library raises
                reasons[name] = reason_of(error)
    return Race({name: rounds[name] for name in runs if name not in reasons}, reasons)


def _rotated(names: list[str], turn: int) -> list[str]:
    first = turn % len(names) if names else 0
    return names[first:] + names[:first]


def _warm_up(run: Run, clock: Clock, turns: Turns) -> int:
    """Run until it is warm; returns how many runs make a turn."""
    clock.seconds(run, WARM_UPS)
    fastest = min(clock.seconds(run, FEWEST))
    return int(np.clip(np.ceil(turns.seconds / max(fastest, 1e-9)), FEWEST, MOST))


def statistics_of(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Median and slow ends of all runs, in seconds."""
    pooled = np.concatenate([np.asarray(each) for each in rounds])
    median, p90, p99 = np.percentile(pooled, [50, 90, 99])
    return {
        "median_s": float(median),
        "p90_s": float(p90),
        "p99_s": float(p99),
        "runs": len(pooled),
        "rounds": len(rounds),
    }


def speedup(baseline: Sequence[Sequence[float]], rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    """How many times as fast as a baseline, round by round: the median of the rounds, their lowest and highest."""
    ratios = [float(np.median(first) / np.median(second)) for first, second in zip(baseline, rounds, strict=True)]
    return {
        "speedup": float(np.median(ratios)),
        "speedup_lowest": min(ratios),
        "speedup_highest": max(ratios),
    }
