"""The log of processes that work for this one: their records arrive here and are shown as if they were ours."""

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
    """A record on its way to the process that started the worker."""

    record: logging.LogRecord


class _Pipe(Protocol):
    def send(self, message: Any, /) -> None: ...


def log_level() -> int:
    """What a worker is to log: what is logged here."""
    return _LOGGER.getEffectiveLevel()


def send_log(pipe: _Pipe, level: int) -> Callable[[Any], None]:
    """Send what this process logs through its pipe, from now on.

    Args:
        pipe: Where the other process listens.
        level: What is logged.

    Returns:
        What all else has to be sent with: records come from any thread, and a pipe takes one message at a time.
    """
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            pipe.send(message)

    _LOGGER.addHandler(_Sender(send))
    _LOGGER.setLevel(level)
    return send


def log_here(message: Logged) -> None:
    """Log a record of a worker."""
    logging.getLogger(message.record.name).handle(message.record)


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[Any], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        # Where nobody listens any more, the worker is about to end.
        with contextlib.suppress(OSError):
            self._send(Logged(_portable(record)))


def _portable(record: logging.LogRecord) -> logging.LogRecord:
    """The record without what no other process can have; paths stay paths, for they are shown in a way of their own."""
    copy = logging.makeLogRecord(record.__dict__)
    if copy.exc_info:
        copy.exc_text, copy.exc_info = logging.Formatter().formatException(copy.exc_info), None
    if isinstance(copy.args, tuple):
        copy.args = tuple(each if isinstance(each, int | float | str | Path) else str(each) for each in copy.args)
    return copy
