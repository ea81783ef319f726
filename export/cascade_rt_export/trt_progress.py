"""Watch and stop a TensorRT build."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from cascade_rt.engines.tensorrt_api import TensorRT


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """A builder step that has just been completed."""

    phase: str
    """TensorRT's name of the phase."""
    step: int
    """Number of completed steps of the phase."""
    steps: int
    """Total number of steps of the phase."""
    inside: str | None
    """The parent phase, or None for an outermost phase."""


OnProgress = Callable[[BuildProgress], bool]
"""Called after each step. Returns whether to continue. TensorRT may call it from its own threads."""


class BuildWatch:
    """Forwards steps to a callback, and records why the build has to stop.

    An exception must not propagate through TensorRT's own code, because that would end the process. Exceptions are
    therefore stored, and `reraise` raises them after the build.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._phases: dict[str, tuple[str | None, int]] = {}
        self._raised: Exception | None = None
        self.cancelled = False
        self.interrupted_by: int | None = None

    def start(self, phase: str, inside: str | None, steps: int) -> None:
        """Record the start of a phase."""
        self._phases[phase] = inside, steps

    def step(self, phase: str, step: int) -> bool:
        """Forward a step. Returns whether TensorRT should continue."""
        if self.stopped:
            return False
        inside, steps = self._phases.get(phase, (None, 0))
        try:
            self.cancelled = not self._on_progress(BuildProgress(phase, step + 1, steps, inside))
        except Exception as error:  # noqa: BLE001 - raised again after the build
            self._raised = error
        return not self.stopped

    def finish(self, phase: str) -> None:
        """Record the end of a phase."""
        self._phases.pop(phase, None)

    @property
    def stopped(self) -> bool:
        """Return whether the build has to stop."""
        return self.cancelled or self._raised is not None or self.interrupted_by is not None

    def reraise(self) -> None:
        """Raise the exception that the callback raised, if any."""
        if self._raised is not None:
            raise self._raised

    @contextmanager
    def holding_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM stop the build, and raise the signal again afterwards with its previous handler.

        Python handles signals only in the main thread, so this does nothing in other threads.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # None means that the handler was not set from Python and could not be restored.
        held = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
        for number in held:
            signal.signal(number, self._note_signal)
        try:
            yield
        finally:
            for number, handler in held.items():
                signal.signal(number, handler)
            if self.interrupted_by is not None:
                signal.raise_signal(self.interrupted_by)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        self.interrupted_by = number


def progress_monitor(trt: TensorRT, watch: BuildWatch) -> Any:
    """Make the object through which TensorRT reports its steps to a watch."""
    base = trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()
