"""The worker process: segments the scans it is sent, and sends a heartbeat for each finished block of slices."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process

from cascade_rt.common.worker_logs import send_log
from cascade_rt.errors import CascadeError
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.task_result import TaskResult
from cascade_rt.run.inference import RunOptions, infer_files


@dataclass(frozen=True, slots=True)
class Opened:
    """The engines are open."""


@dataclass(frozen=True, slots=True)
class NotOpened:
    """The engines cannot be opened, in this or any other worker."""

    error: CascadeError


@dataclass(frozen=True, slots=True)
class AtWork:
    """Heartbeat."""


def work(
    pipe: connection.Connection,
    open_cascade: Callable[[], Cascade],
    options: RunOptions,
    cpus: Sequence[int],
    level: int = logging.WARNING,
) -> None:
    """Segment scans until the pipe is closed.

    Args:
        pipe: The worker's end of the pipe. Cases go in; `Opened`, `NotOpened`, `AtWork`, `TaskResult` and log records
            come out.
        open_cascade: Opens the cascade.
        options: How scans are read, searched and written.
        cpus: The CPUs to run on; if empty, any.
        level: Log level; the records are sent through the pipe.
    """
    # Ctrl-C reaches all processes of a terminal, but the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    send = send_log(pipe, level)
    try:
        cascade = open_cascade()
    except CascadeError as error:
        send(NotOpened(error))
        return
    with cascade:
        send(Opened())
        for case in _cases(pipe):
            ((_, outcome),) = infer_files(cascade, [case], options, on_slices=lambda _: send(AtWork()))
            send(TaskResult.of(outcome))


def _cases(pipe: connection.Connection) -> Generator[Case]:
    while True:
        try:
            yield pipe.recv()
        except EOFError:
            return


def _end(number: int, _: object) -> None:
    """Exit by an exception, so that temporary files are removed."""
    sys.exit(128 + number)


def _end_with_parent() -> None:
    """Exit at once when the parent process is gone: nobody would record the result of the scan."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
