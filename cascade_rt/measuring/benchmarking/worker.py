"""A separate process for each arm, which opens its runner once, stays warm, and runs only when told to.

The arms therefore do not share thread pools, allocators or libraries, and the peak memory is that of a single arm.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from cascade_rt.common.child_process import ChildEndedError, ChildProcess, Receive, Send
from cascade_rt.common.worker_logs import Logged
from cascade_rt.errors import CascadeError, EngineError
from cascade_rt.measuring.benchmarking.gpu_memory import gpu_memory_bytes
from cascade_rt.measuring.benchmarking.machine import peak_memory_bytes


class Runner(Protocol):
    """Segments scan files in the process of an arm."""

    @property
    def description(self) -> Mapping[str, Any]:
        """Description of the engine, as plain values."""
        ...

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        """Segment a scan, write its mask (replacing an existing one), and return the seconds of each step."""
        ...


OpenRunner = Callable[[], Runner]
"""Opens a runner. Must be picklable: a module-level function, or a `functools.partial` of one."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The start of an arm."""

    seconds: float
    """Seconds from starting the process until it was ready for a scan."""
    description: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """The run of one scan, from file to file."""

    seconds: float
    steps: Mapping[str, float]
    """Seconds of each step. Their sum exceeds the total if steps ran concurrently."""


class Worker:
    """The process of one arm."""

    def __init__(self, name: str, open_runner: OpenRunner) -> None:
        """Start the process and open the runner in it.

        Raises:
            CascadeError: Opening the runner failed.
            EngineError: The process ended.
        """
        self.name = name
        start = time.perf_counter()
        self._process = ChildProcess(_serve, open_runner)
        try:
            description: Mapping[str, Any] = self._receive()
        except BaseException:
            self.close()
            raise
        self.opened = Opened(time.perf_counter() - start, description)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, scan: Path, mask: Path) -> Run:
        """Segment a scan file, replacing an existing mask.

        Raises:
            CascadeError: The runner failed.
            EngineError: The process ended.
        """
        run: Run = self._ask((scan, mask))
        return run

    def peak_memory_bytes(self) -> int:
        """Return the peak memory of the process so far. Raises EngineError if it ended."""
        peak: int = self._ask(None)
        return peak

    def gpu_memory_bytes(self) -> int | None:
        """Return the memory that the process holds on GPUs now, or None if there is none or it cannot be determined."""
        return gpu_memory_bytes(self._process.pid)

    def close(self) -> None:
        """End the process; may be called twice."""
        self._process.end()

    def _ask(self, question: tuple[Path, Path] | None) -> Any:
        with self._ended_as_engine_error():
            self._process.send(question)
        return self._receive()

    def _receive(self) -> Any:
        with self._ended_as_engine_error():
            while isinstance(answer := self._process.receive(), Logged):
                pass
        if isinstance(answer, CascadeError):
            raise answer
        return answer

    @contextmanager
    def _ended_as_engine_error(self) -> Iterator[None]:
        try:
            yield
        except ChildEndedError as error:
            raise EngineError(f"{self.name}: its process {error}; see its last output for the reason") from error


def _serve(receive: Receive, send: Send, open_runner: OpenRunner) -> None:
    """Answer requests until the other end is closed. Any other error is a bug and ends the process with a traceback."""
    try:
        runner = open_runner()
    except CascadeError as error:
        send(error)
        return
    send(dict(runner.description))
    while True:
        try:
            question = receive()
        except EOFError:
            return
        send(peak_memory_bytes() if question is None else _run(runner, *question))


def _run(runner: Runner, scan: Path, mask: Path) -> Run | CascadeError:
    start = time.perf_counter()
    try:
        steps = runner.run(scan, mask)
    except CascadeError as error:
        return error
    return Run(time.perf_counter() - start, dict(steps))
