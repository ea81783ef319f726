"""What tests tell this TensorRT to do, and what it tells them.

Child processes read the environment: `EMULATED_TENSORRT=refuses_capture,allocates_in_capture`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Outputs = dict[str, np.ndarray]


def _wanted(name: str) -> Callable[[], bool]:
    return lambda: name in os.environ.get("EMULATED_TENSORRT", "").split(",")


@dataclass
class Behaviour:
    """Faults to show, and notes of what was done, in this process."""

    refuses_profiles: bool = field(default_factory=_wanted("refuses_profiles"))
    """No shape profile can be chosen."""
    refuses_to_run: bool = field(default_factory=_wanted("refuses_to_run"))
    """Nothing is enqueued, and an error is logged."""
    refuses_capture: bool = field(default_factory=_wanted("refuses_capture"))
    """The same, but only while a stream is captured."""
    allocates_in_capture: bool = field(default_factory=_wanted("allocates_in_capture"))
    """Memory is allocated while a stream is captured, which voids the capture; the run is reported as enqueued."""
    has_no_memory: bool = field(default_factory=_wanted("has_no_memory"))
    """Execution contexts cannot be created, and the log says why."""
    spoil: Callable[[Outputs], Outputs] = lambda outputs: outputs
    """Changes the outputs of every run."""
    profiles_run: list[int] = field(default_factory=list)
    """The shape profile of each run that was computed, in order."""
    enqueued: int = 0
    """How often a run was put on a stream, other than by launching a graph."""

    def reset(self) -> None:
        """Behave again, and forget."""
        self.__init__()  # type: ignore[misc]


behaviour = Behaviour()
