"""The worker process: segments the scans it is sent, and sends a heartbeat for each finished block of slices."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cascade_rt.common.child_process import Receive, Send
from cascade_rt.errors import CascadeError
from cascade_rt.run.cascade import Cascade
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
    receive: Receive, send: Send, open_cascade: Callable[[], Cascade], options: RunOptions, cpus: Sequence[int]
) -> None:
    """Segment the cases that are received, until the pipe is closed.

    Args:
        receive: Waits for a case.
        send: Sends `Opened`, `NotOpened`, `AtWork` or `TaskResult`.
        open_cascade: Opens the cascade.
        options: How scans are read, searched and written.
        cpus: The CPUs to run on; if empty, any.
    """
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    try:
        cascade = open_cascade()
    except CascadeError as error:
        send(NotOpened(error))
        return
    with cascade:
        send(Opened())
        while True:
            try:
                case = receive()
            except EOFError:
                return
            ((_, outcome),) = infer_files(cascade, [case], options, on_slices=lambda _: send(AtWork()))
            send(TaskResult.of(outcome))
