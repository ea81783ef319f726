"""Watching and stopping TensorRT while it compiles."""

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
    """A step of the builder that has just been done."""

    phase: str
    """What TensorRT calls the phase."""
    step: int
    """Steps of the phase that are done."""
    steps: int
    """Steps that the phase has."""
    inside: str | None
    """The phase that this one is part of."""


OnProgress = Callable[[BuildProgress], bool]
"""Called after each step; returns whether to go on. TensorRT may call it from threads of its own."""


class BuildWatch:
    """Passes steps on, and remembers why the build has to stop.

    Nothing may be raised through TensorRT's own code, which would end the process; so what is raised is kept, and
    `reraise` raises it after the build.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._phases: dict[str, tuple[str | None, int]] = {}
        self._raised: Exception | None = None
        self.cancelled = False
        self.interrupted_by: int | None = None

    def start(self, phase: str, inside: str | None, steps: int) -> None:
        """Note a phase."""
        self._phases[phase] = inside, steps

    def step(self, phase: str, step: int) -> bool:
        """Pass a step on; returns whether TensorRT is to go on."""
        if self.stopped:
            return False
        inside, steps = self._phases.get(phase, (None, 0))
        try:
            self.cancelled = not self._on_progress(BuildProgress(phase, step + 1, steps, inside))
        except Exception as error:  # noqa: BLE001 - raised again after the build
            self._raised = error
        return not self.stopped

    def finish(self, phase: str) -> None:
        """Forget a phase."""
        self._phases.pop(phase, None)

    @property
    def stopped(self) -> bool:
        """Whether the build has to stop."""
        return self.cancelled or self._raised is not None or self.interrupted_by is not None

    def reraise(self) -> None:
        """Raise what the callback raised."""
        if self._raised is not None:
            raise self._raised

    @contextmanager
    def holding_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the build; then they do what they always do.

        Python answers signals in the main thread alone, so in another one nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # None is a handler that was not set from Python and could not be put back.
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
    """The object through which TensorRT tells its steps."""
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
