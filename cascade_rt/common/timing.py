"""Timing of the steps of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Accumulates the seconds spent in each named step; a step may be entered many times."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time inside the `with` block towards the step `name`."""
        self._seconds.setdefault(name, 0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each step, in the order in which the steps were first entered."""
        return dict(self._seconds)

    @property
    def elapsed(self) -> float:
        """Seconds since the stopwatch was created, inside and outside of steps."""
        return time.perf_counter() - self._start
