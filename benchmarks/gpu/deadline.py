"""A moment after which nothing more is begun, so that a run ends in time with what it has."""

import math
import time
from dataclasses import dataclass
from typing import Self

NO_TIME = "no time was left"
"""The reason of what was not begun."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment; by default one that never comes."""

    moment: float = math.inf
    """On the clock of `time.monotonic`."""

    @classmethod
    def after(cls, seconds: float) -> Self:
        """The moment in so many seconds."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self.moment - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether it has come."""
        return self.left <= 0


NEVER = Deadline()
