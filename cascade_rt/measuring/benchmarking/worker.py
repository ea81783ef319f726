"""A process of its own for each arm: it opens once, stays warm, and runs only when it is told to.

Thread pools, allocators and libraries of the arms do not meet that way, and the peak memory is that of one arm.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from cascade_rt.common.worker_logs import Logged, log_here, log_level, send_log
from cascade_rt.errors import CascadeError, EngineError
from cascade_rt.measuring.benchmarking.gpu_memory import gpu_memory_bytes
from cascade_rt.measuring.benchmarking.machine import peak_memory_bytes

_PATIENCE_S = 5.0
"""What a process is given to end by itself."""


class Runner(Protocol):
    """Segments scan files, in the process of an arm."""

    @property
    def description(self) -> Mapping[str, Any]:
        """What computes, as plain values."""
        ...

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        """Segment a scan and write its mask, over one that is there; returns the seconds of each step."""
        ...


OpenRunner = Callable[[], Runner]
"""Opens a runner. It is sent to the process: a function of a module, or a `functools.partial` of one."""


@dataclass(frozen=True, slots=True)
class Opened:
    """How an arm started."""

    seconds: float
    """From the start of its process until it could take a scan."""
    description: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One scan, from file to file."""

    seconds: float
    steps: Mapping[str, float]
    """Seconds of each step. They add up to more than the whole where steps ran at the same time."""


class Worker:
    """The process of one arm."""

    def __init__(self, name: str, open_runner: OpenRunner) -> None:
        """Start the process and open the runner in it.

        Raises:
            CascadeError: What opening it raised.
            EngineError: The process ended.
        """
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, open_runner, log_level()), daemon=True)
        start = time.perf_counter()
        self._process.start()
        other.close()
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
        """Segment a scan file; the mask is replaced where it is there.

        Raises:
            CascadeError: What the runner raised.
            EngineError: The process ended.
        """
        run: Run = self._ask((scan, mask))
        return run

    def peak_memory_bytes(self) -> int:
        """The most memory that the process has held so far; raises EngineError where it ended."""
        peak: int = self._ask(None)
        return peak

    def gpu_memory_bytes(self) -> int | None:
        """What the process holds on GPUs now; None where there is none, or where the driver does not tell."""
        return gpu_memory_bytes(self._process.pid or 0)

    def close(self) -> None:
        """End the process; it may be called twice."""
        self._connection.close()
        self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, question: tuple[Path, Path] | None) -> Any:
        try:
            self._connection.send(question)
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended() from None
        return self._receive()

    def _receive(self) -> Any:
        try:
            while isinstance(answer := self._connection.recv(), Logged):
                log_here(answer)
        except (EOFError, ConnectionResetError):
            raise self._ended() from None
        if isinstance(answer, _Failure):
            raise answer.kind(answer.message, code=answer.code)
        return answer

    def _ended(self) -> EngineError:
        self._process.join(_PATIENCE_S)
        code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return EngineError(
            f"{self.name}: its process ended with {how}; what it printed last says why, and signal 9 is often lack of "
            "memory"
        )


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error of ours on its way to the other process."""

    kind: type[CascadeError]
    message: str
    code: str


def _serve(connection: Connection, open_runner: OpenRunner, level: int) -> None:
    """Answer until the other end is closed. An error that is a bug ends the process, with its traceback."""
    # Ctrl-C goes to both; the other process closes this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send = send_log(connection, level)
    try:
        runner = open_runner()
    except CascadeError as error:
        send(_Failure(type(error), str(error), error.code))
        return
    send(dict(runner.description))
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        send(peak_memory_bytes() if question is None else _run(runner, *question))


def _run(runner: Runner, scan: Path, mask: Path) -> Run | _Failure:
    start = time.perf_counter()
    try:
        steps = runner.run(scan, mask)
    except CascadeError as error:
        return _Failure(type(error), str(error), error.code)
    return Run(time.perf_counter() - start, dict(steps))
