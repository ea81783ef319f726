"""Run parts one after another, each in a process of its own that is killed at its deadline.

The failure of a part never stops the next. A line about each part is written when it ends.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.gpu.deadline import NO_TIME, Deadline
from benchmarks.gpu.expedition.parts import Part

Status = Literal["done", "failed", "timed out", "not begun"]
STATUSES: tuple[Status, ...] = ("done", "failed", "timed out", "not begun")

LEAST_SECONDS = 5.0
"""With less left no part is begun: it would be killed while it imports."""
_SHOWN = 64_000
"""Bytes of the end of a part's output that are kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a part ended."""

    part: str
    status: Status
    seconds: float
    reason: str | None = None
    """The last line of its output, if it failed."""


class Running:
    """A part that runs."""

    def __init__(self, part: Part, command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float):
        """Start it.

        Args:
            part: The part.
            command: What does it.
            environment: Of its process.
            log: File for its output.
            seconds: After so many it is killed, with all processes that it started.
        """
        self.part = part
        self._allowed = seconds
        self._deadline = Deadline.after(seconds)
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A process group of its own, which can be killed as a whole.
                start_new_session=True,
            )

    def wait(self) -> Outcome:
        """Wait until it ends, or kill it at its deadline."""
        try:
            code = self._process.wait(max(self._deadline.left, 0))
        except subprocess.TimeoutExpired:
            self.kill()
            return Outcome(self.part.name, "timed out", self._allowed, f"killed after {self._allowed:.0f} s")
        finally:
            self.kill()
        seconds = round(self._allowed - self._deadline.left, 1)
        if code == 0:
            return Outcome(self.part.name, "done", seconds)
        return Outcome(self.part.name, "failed", seconds, self._last_words(code))

    def kill(self) -> None:
        """End the process and all that it started, at once; does nothing if none is left."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    def output(self) -> str:
        """The end of what it printed."""
        return self._log.read_bytes()[-_SHOWN:].decode(errors="replace")

    def _last_words(self, code: int) -> str:
        spoken = [line.strip() for line in self.output().splitlines() if line.strip()]
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return spoken[-1] if spoken and code > 0 else f"{how}: {spoken[-1] if spoken else 'it said nothing'}"


Launch = Callable[[Part, float], Running]
"""Starts a part, with the seconds that it may take."""


def run_parts(
    parts: Iterable[Part], launch: Launch, on_end: Callable[[Outcome, str], None], seconds: float
) -> tuple[Outcome, ...]:
    """Run parts in order.

    Args:
        parts: The parts.
        launch: Starts one.
        on_end: Called when a part ended, with the end of its output.
        seconds: What all have together.

    Returns:
        How they ended, in the order in which they did.
    """
    whole = Deadline.after(seconds)
    in_background: dict[str, Running] = {}
    outcomes: list[Outcome] = []

    def note(outcome: Outcome, output: str = "") -> None:
        outcomes.append(outcome)
        on_end(outcome, output)

    def finish(running: Running) -> None:
        note(running.wait(), running.output())

    try:
        for part in parts:
            if part.after in in_background:
                finish(in_background.pop(part.after))
            if whole.left < min(LEAST_SECONDS, seconds):
                note(Outcome(part.name, "not begun", 0.0, NO_TIME))
                continue
            running = in_background[part.name] = launch(part, min(part.seconds, whole.left))
            if not part.background:
                finish(running)
                del in_background[part.name]
        while in_background:
            finish(in_background.pop(next(iter(in_background))))
    finally:
        # After an interrupt, nothing that was started goes on.
        for running in in_background.values():
            running.kill()
    return tuple(outcomes)


def last_line(outcomes: Sequence[Outcome]) -> str:
    """Which parts ran, in one sentence."""
    of_status = {status: [each.part for each in outcomes if each.status == status] for status in STATUSES}
    return "; ".join(f"{status}: {', '.join(names)}" for status, names in of_status.items() if names)
