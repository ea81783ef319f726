"""Segment scans in worker processes, which may crash or hang without affecting the others."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection

from cascade_rt.common.worker_logs import Logged, log_here, log_level
from cascade_rt.errors import WorkerError
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.run import Runner
from cascade_rt.run.cohort.task_result import TaskResult
from cascade_rt.run.cohort.worker import AtWork, NotOpened, Opened, work
from cascade_rt.run.inference import DEFAULT_RUN_OPTIONS, RunOptions

SECONDS_WITHOUT_PROGRESS = 600.0
"""Default timeout: how long a scan may take without finishing a slice."""
OPENING_SECONDS = 3600.0
"""Timeout for opening the engines, which includes compiling them for TensorRT."""
_LONGEST_WAIT_SECONDS = 3600.0
"""Longest single wait; operating systems do not accept arbitrarily long ones."""
_LAST_WORDS_SECONDS = 5.0
"""Timeout for a worker to clean up after it was asked to end."""


def run_in_workers(
    open_cascade: Callable[[], Cascade],
    count: int,
    options: RunOptions = DEFAULT_RUN_OPTIONS,
    *,
    timeout: float = SECONDS_WITHOUT_PROGRESS,
) -> Runner:
    """Return a runner that uses worker processes, which are started on demand and reused for many scans.

    Args:
        open_cascade: Opens the cascade in the worker; must be picklable.
        count: Number of workers.
        options: How scans are read, searched and written.
        timeout: Seconds without a finished slice after which a worker is killed.

    Raises:
        CascadeError: The engines cannot be opened.
    """

    def run(cases: Iterable[Case]) -> Generator[tuple[Case, TaskResult]]:
        waiting = iter(cases)
        pool = [_Worker(open_cascade, options, cpus) for cpus in _shares_of_cpus(count)]
        try:
            while True:
                for worker in pool:
                    if worker.case is None and (case := next(waiting, None)) is not None:
                        worker.give(case)
                busy = [worker for worker in pool if worker.case is not None]
                if not busy:
                    return
                yield from _next_answers(busy, timeout)
        finally:
            for worker in pool:
                worker.ask_to_end()
            for worker in pool:
                worker.end()

    return run


def _next_answers(busy: Sequence["_Worker"], timeout: float) -> Iterator[tuple[Case, TaskResult]]:
    """Wait for a message, a crash or a timeout of any worker, and yield the results of finished cases."""
    patience = min(worker.patience(timeout) for worker in busy)
    ready = connection.wait([worker.pipe for worker in busy], timeout=min(max(0.0, patience), _LONGEST_WAIT_SECONDS))
    for worker in busy:
        case = worker.case
        # A worker whose message arrived while others were handled has not timed out; `judge` polls its pipe.
        answer = worker.listen() if worker.pipe in ready else worker.judge(timeout)
        if answer is not None and case is not None:
            yield case, answer


class _Worker:
    """A worker process and its current case."""

    def __init__(self, open_cascade: Callable[[], Cascade], options: RunOptions, cpus: Sequence[int]) -> None:
        self._arguments = (open_cascade, options, cpus)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._is_open = False
        self._last_sign = 0.0
        self.case: Case | None = None

    @property
    def pipe(self) -> connection.Connection:
        """Our end of the pipe to the process."""
        return self._pipe

    def give(self, case: Case) -> None:
        """Send a case to the process, starting it if necessary."""
        if self._process is None:
            self._start()
        try:
            self._pipe.send(case)
        except OSError:
            # The process died while idle, so the scan is not to blame.
            self.end()
            self._start()
            self._pipe.send(case)
        self.case, self._last_sign = case, time.monotonic()

    def patience(self, timeout: float) -> float:
        """Return the seconds left until the process times out."""
        allowed = timeout if self._is_open else max(timeout, OPENING_SECONDS)
        return self._last_sign + allowed - time.monotonic()

    def listen(self) -> TaskResult | None:
        """Receive one message. Return the result if it ends the case or the process has crashed, otherwise None."""
        try:
            message = self._pipe.recv()
        except (EOFError, ConnectionError):
            return self._crashed()
        if isinstance(message, Logged):
            # Not a heartbeat: a process that is stuck waiting may log so repeatedly.
            log_here(message)
            return None
        self._last_sign = time.monotonic()
        match message:
            case TaskResult():
                self.case = None
                return message
            case NotOpened(error):
                raise error
            case Opened():
                self._is_open = True
            case AtWork():
                pass
        return None

    def judge(self, timeout: float) -> TaskResult | None:
        """Kill the process if it has timed out, and return the result for its case; otherwise return None."""
        if self.patience(timeout) > 0 or self._pipe.poll():
            return None
        name = "" if self.case is None else f"{self.case.scan}: "
        self._kill()
        if not self._is_open:
            seconds = max(timeout, OPENING_SECONDS)
            raise WorkerError(f"a worker was still opening its engines after {seconds:g} s", code="E_TIMEOUT")
        self.case = None
        return TaskResult(
            error=WorkerError(
                f"{name}made no progress for {timeout:g} s and was stopped; if the machine is busy, raise `timeout`",
                code="E_TIMEOUT",
            )
        )

    def ask_to_end(self) -> None:
        """Tell the process to abandon its case and clean up."""
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        """Wait briefly for the process to exit, then kill it."""
        if self._process is not None:
            self._process.join(_LAST_WORDS_SECONDS)
            self._kill()

    def _start(self) -> None:
        here, there = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=work, args=(there, *self._arguments, log_level()), daemon=True)
        with _interrupts_ignored():
            self._process.start()
        there.close()
        self._pipe = here
        self._is_open, self._last_sign = False, time.monotonic()

    def _crashed(self) -> TaskResult:
        """Return the result for the case of a crashed process. Raises WorkerError if no scan can be blamed for it."""
        process, case, was_open = self._process, self.case, self._is_open
        if process is not None:
            process.join(_LAST_WORDS_SECONDS)
        how = _how_it_ended(None if process is None else process.exitcode)
        self._kill()
        self.case = None
        if not was_open or case is None:
            raise WorkerError(f"a worker {how} while opening its engines; run without `workers` to see why")
        return TaskResult(
            error=WorkerError(f"{case.scan}: its worker process {how}; try it alone, without `workers`"),
            is_transient=True,
        )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._pipe.close()
            self._process = None


_CONTEXT = multiprocessing.get_context("spawn")
"""Engines have threads, and a forked process would inherit their locks but not the threads."""


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Make processes started inside this context ignore Ctrl-C from the start."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    if -exit_code == signal.SIGKILL:
        return "was killed, perhaps because memory ran out"
    return f"crashed ({signal.Signals(-exit_code).name})"


def _shares_of_cpus(count: int) -> list[Sequence[int]]:
    """Return the CPUs of each worker: equal shares, because engines use as many threads as they see CPUs."""
    if count == 1 or not hasattr(os, "sched_getaffinity"):
        return [()] * count
    cpus = sorted(os.sched_getaffinity(0))
    shares = [cpus[first::count] for first in range(count)]
    return [share or [cpus[number % len(cpus)]] for number, share in enumerate(shares)]
