"""Segment scans in worker processes, which may crash or hang without affecting the others."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import cycle
from multiprocessing import connection

from cascade_rt.common.child_process import ChildEndedError, ChildProcess
from cascade_rt.common.worker_logs import Logged
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


OpenCascade = Callable[[], Cascade]
"""Opens the cascade in a worker; must be picklable."""


def run_in_workers(
    open_cascade: OpenCascade | Sequence[OpenCascade],
    count: int,
    options: RunOptions = DEFAULT_RUN_OPTIONS,
    *,
    timeout: float = SECONDS_WITHOUT_PROGRESS,
) -> Runner:
    """Return a runner that uses worker processes, which are started on demand and reused for many scans.

    Args:
        open_cascade: Opens the cascade in the worker. Of several, such as one for each GPU, each worker keeps the one
            that falls to it, also if it is restarted; the workers take them in turn.
        count: Number of workers.
        options: How scans are read, searched and written.
        timeout: Seconds without a finished slice after which a worker is killed.

    Raises:
        CascadeError: The engines cannot be opened.
    """
    ways_to_open = [open_cascade] if callable(open_cascade) else open_cascade

    def run(cases: Iterable[Case]) -> Generator[tuple[Case, TaskResult]]:
        waiting = iter(cases)
        shares = zip(cycle(ways_to_open), _shares_of_cpus(count), strict=False)
        pool = [_Worker(opens, options, cpus) for opens, cpus in shares]
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
    shortest_wait = min(worker.seconds_left(timeout) for worker in busy)
    ready = connection.wait(
        [worker.process.pipe for worker in busy], timeout=min(max(0.0, shortest_wait), _LONGEST_WAIT_SECONDS)
    )
    for worker in busy:
        case = worker.case
        # A worker whose message arrived while others were handled has not timed out; `end_if_timed_out` polls its pipe.
        answer = worker.listen() if worker.process.pipe in ready else worker.end_if_timed_out(timeout)
        if answer is not None and case is not None:
            yield case, answer


class _Worker:
    """A worker process and its current case."""

    def __init__(self, open_cascade: OpenCascade, options: RunOptions, cpus: Sequence[int]) -> None:
        self._arguments = (open_cascade, options, cpus)
        self._process: ChildProcess | None = None
        self._is_open = False
        self._last_sign = 0.0
        self.case: Case | None = None

    @property
    def process(self) -> ChildProcess:
        """The process, which is started if necessary."""
        if self._process is None:
            self._process = ChildProcess(work, *self._arguments)
            self._is_open = False
        return self._process

    def give(self, case: Case) -> None:
        """Send a case to the process, starting it if necessary."""
        try:
            self.process.send(case)
        except ChildEndedError:
            # The process died while idle, so the scan is not to blame.
            self.end()
            self.process.send(case)
        self.case, self._last_sign = case, time.monotonic()

    def seconds_left(self, timeout: float) -> float:
        """Return the seconds left until the process times out."""
        allowed = timeout if self._is_open else max(timeout, OPENING_SECONDS)
        return self._last_sign + allowed - time.monotonic()

    def listen(self) -> TaskResult | None:
        """Receive one message. Return the result if it ends the case or the process has crashed, otherwise None."""
        try:
            message = self.process.receive()
        except ChildEndedError as ended:
            return self._crashed(str(ended))
        if isinstance(message, Logged):
            # Not a heartbeat: a process that is stuck waiting may log so repeatedly.
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

    def end_if_timed_out(self, timeout: float) -> TaskResult | None:
        """Kill the process if it has timed out, and return the result for its case; otherwise return None."""
        if self.seconds_left(timeout) > 0 or self.process.pipe.poll():
            return None
        name = "" if self.case is None else f"{self.case.scan}: "
        self.end(wait=False)
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

    def end(self, *, wait: bool = True) -> None:
        """End the process, if `wait` only after it has had some seconds to end by itself."""
        if self._process is not None:
            self._process.end(wait=wait)
            self._process = None

    def _crashed(self, how: str) -> TaskResult:
        """Return the result for the case of a crashed process. Raises WorkerError if no scan can be blamed for it."""
        case, was_open = self.case, self._is_open
        self.end()
        self.case = None
        if not was_open or case is None:
            raise WorkerError(f"a worker {how} while opening its engines; run without `workers` to see why")
        return TaskResult(
            error=WorkerError(f"{case.scan}: its worker process {how}; try it alone, without `workers`"),
            is_transient=True,
        )


def _shares_of_cpus(count: int) -> list[Sequence[int]]:
    """Return the CPUs of each worker: equal shares, because engines use as many threads as they see CPUs."""
    if count == 1 or not hasattr(os, "sched_getaffinity"):
        return [()] * count
    cpus = sorted(os.sched_getaffinity(0))
    shares = [cpus[first::count] for first in range(count)]
    return [share or [cpus[number % len(cpus)]] for number, share in enumerate(shares)]
