"""Scans in processes of their own, which may crash or hang without harm to the others."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from cascade_rt.common.worker_logs import Logged, log_here, log_level
from cascade_rt.errors import WorkerError
from cascade_rt.run.cohort.in_process import Runner
from cascade_rt.run.cohort.task_result import TaskResult
from cascade_rt.run.cohort.worker import AtWork, NotOpened, Opened, work
from cascade_rt.run.fallback import FallbackCascade
from cascade_rt.run.inference import Job

SECONDS_WITHOUT_PROGRESS = 600.0
"""How long a scan may go without a finished slice, by default."""
OPENING_SECONDS = 3600.0
"""How long opening the engines may take; TensorRT compiles them then."""
_LONGEST_WAIT_SECONDS = 3600.0
"""How long to wait before looking again; systems cannot wait for as long as numbers go."""
_LAST_WORDS_SECONDS = 5.0
"""How long a worker that was told to end may take to tidy up."""


def run_in_workers(
    open_cascade: Callable[[], FallbackCascade],
    count: int,
    *,
    timeout: float = SECONDS_WITHOUT_PROGRESS,
    **options: Any,
) -> Runner:
    """Compute in worker processes, which are started when there is something to do and stay over many scans.

    Args:
        open_cascade: Opens the cascade, in the worker; it must be possible to send it there.
        count: How many workers.
        timeout: Seconds without a finished slice after which a worker is killed.
        options: As of `infer_file`; it must be possible to send them.

    Raises:
        CascadeError: The engines cannot be opened.
    """

    def run(jobs: Iterable[Job]) -> Generator[tuple[Job, TaskResult]]:
        waiting = iter(jobs)
        pool = [_Worker(open_cascade, options, cpus) for cpus in _shares_of_cpus(count)]
        try:
            while True:
                for worker in pool:
                    if worker.job is None and (job := next(waiting, None)) is not None:
                        worker.give(job)
                busy = [worker for worker in pool if worker.job is not None]
                if not busy:
                    return
                yield from _next_answers(busy, timeout)
        finally:
            for worker in pool:
                worker.ask_to_end()
            for worker in pool:
                worker.end()

    return run


def _next_answers(busy: Sequence["_Worker"], timeout: float) -> Iterator[tuple[Job, TaskResult]]:
    """Wait until something happens to some of the workers."""
    patience = min(worker.patience(timeout) for worker in busy)
    ready = connection.wait([worker.pipe for worker in busy], timeout=min(max(0.0, patience), _LONGEST_WAIT_SECONDS))
    for worker in busy:
        job = worker.job
        # One whose message came while others were looked after is not late.
        answer = worker.listen() if worker.pipe in ready else worker.judge(timeout)
        if answer is not None and job is not None:
            yield job, answer


class _Worker:
    """A process and what it is doing."""

    def __init__(
        self, open_cascade: Callable[[], FallbackCascade], options: Mapping[str, Any], cpus: Sequence[int]
    ) -> None:
        self._arguments = (open_cascade, options, cpus)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._is_open = False
        self._last_sign = 0.0
        self.job: Job | None = None

    @property
    def pipe(self) -> connection.Connection:
        """This end of its pipe."""
        return self._pipe

    def give(self, job: Job) -> None:
        """Let it segment a scan."""
        if self._process is None:
            self._start()
        try:
            self._pipe.send(job)
        except OSError:
            # It died while it had nothing to do, which is not the scan's fault.
            self.end()
            self._start()
            self._pipe.send(job)
        self.job, self._last_sign = job, time.monotonic()

    def patience(self, timeout: float) -> float:
        """Seconds that are left until it is late."""
        allowed = timeout if self._is_open else max(timeout, OPENING_SECONDS)
        return self._last_sign + allowed - time.monotonic()

    def listen(self) -> TaskResult | None:
        """Take a message; the answer for its scan where that is one, or where it has crashed."""
        try:
            message = self._pipe.recv()
        except (EOFError, ConnectionError):
            return self._crashed()
        if isinstance(message, Logged):
            # No sign of life: who waits for something may say so again and again.
            log_here(message)
            return None
        self._last_sign = time.monotonic()
        match message:
            case TaskResult():
                self.job = None
                return message
            case NotOpened(error):
                raise error
            case Opened():
                self._is_open = True
            case AtWork():
                pass
        return None

    def judge(self, timeout: float) -> TaskResult | None:
        """Kill it where it is late; then the answer for its scan."""
        if self.patience(timeout) > 0 or self._pipe.poll():
            return None
        name = "" if self.job is None else f"{self.job.scan}: "
        self._kill()
        if not self._is_open:
            raise WorkerError(f"a worker was still opening its engines after {OPENING_SECONDS:g} s", code="E_TIMEOUT")
        self.job = None
        return TaskResult(
            error=WorkerError(
                f"{name}made no progress for {timeout:g} s and was given up; is the machine too busy? raise `timeout`",
                code="E_TIMEOUT",
            )
        )

    def ask_to_end(self) -> None:
        """Tell it to leave its scan and tidy up."""
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        """See to it that it is gone."""
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
        """What a crash means for the scan; WorkerError where no scan can be blamed for it."""
        process, job, was_open = self._process, self.job, self._is_open
        if process is not None:
            process.join(_LAST_WORDS_SECONDS)
        how = _how_it_ended(None if process is None else process.exitcode)
        self._kill()
        self.job = None
        if not was_open or job is None:
            raise WorkerError(f"a worker {how} while it opened its engines; see what it says without `workers`")
        return TaskResult(
            error=WorkerError(f"{job.scan}: the process that worked on it {how}; try it alone, without `workers`"),
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
"""Engines have threads, and a forked process would have their locks without them."""


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process started inside ignores Ctrl-C from its first moment on."""
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
        return f"ended with {exit_code}"
    if -exit_code == signal.SIGKILL:
        return "was killed, as the system does when memory is short"
    return f"crashed ({signal.Signals(-exit_code).name})"


def _shares_of_cpus(count: int) -> list[Sequence[int]]:
    """The processors of each worker: an equal share, for engines take as many threads as they see processors."""
    if count == 1 or not hasattr(os, "sched_getaffinity"):
        return [()] * count
    cpus = sorted(os.sched_getaffinity(0))
    shares = [cpus[first::count] for first in range(count)]
    return [share or [cpus[number % len(cpus)]] for number, share in enumerate(shares)]
