"""Forwarding of log records from worker processes to the process that started them."""

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

_LOGGER = logging.getLogger("cascade_rt")


@dataclass(frozen=True, slots=True)
class Logged:
    """A log record on its way from a worker to its parent process."""

    record: logging.LogRecord


class _Pipe(Protocol):
    def send(self, message: Any, /) -> None: ...


def log_level() -> int:
    """Return the log level for workers: the effective level of this process."""
    return _LOGGER.getEffectiveLevel()


def send_log(pipe: _Pipe, level: int) -> Callable[[Any], None]:
    """Forward all further log records of this process through a pipe.

    Args:
        pipe: The pipe to the parent process.
        level: The log level.

    Returns:
        A locked send function, which all other messages must use too: records come from any thread, and only one
        message may be written to the pipe at a time.
    """
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            pipe.send(message)

    _LOGGER.addHandler(_Sender(send))
    _LOGGER.setLevel(level)
    return send


def log_here(message: Logged) -> None:
    """Log a worker's record in this process."""
    logging.getLogger(message.record.name).handle(message.record)


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[Any], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        # If the parent no longer listens, the worker is about to end.
        with contextlib.suppress(OSError):
            self._send(Logged(_portable(record)))


def _portable(record: logging.LogRecord) -> logging.LogRecord:
    """Copy a record without its unpicklable parts. Paths stay `Path` objects, since they are displayed specially."""
    copy = logging.makeLogRecord(record.__dict__)
    if copy.exc_info:
        copy.exc_text, copy.exc_info = logging.Formatter().formatException(copy.exc_info), None
    if isinstance(copy.args, tuple):
        copy.args = tuple(each if isinstance(each, int | float | str | Path) else str(each) for each in copy.args)
    return copy
