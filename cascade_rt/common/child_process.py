"""A child process with a pipe: what it logs is logged here, and it never outlives its parent."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, parent_process
from typing import Any

from cascade_rt.common.worker_logs import Logged, log_here, log_level, send_log

_CONTEXT = multiprocessing.get_context("spawn")
"""Engines have threads, and a forked process would inherit their locks but not the threads."""
_LAST_WORDS_SECONDS = 5.0
"""Timeout for a process to clean up after it was asked to end."""

Receive = Callable[[], Any]
"""In the child: waits for a message. Raises EOFError once the parent has closed the pipe."""
Send = Callable[[Any], None]
"""In the child: sends a message, from any thread."""


class ChildEndedError(Exception):
    """The process has ended although something was expected of it. The message says how it ended."""


class ChildProcess:
    """A process that runs `main(receive, send, *arguments)`, and our end of the pipe to it."""

    def __init__(self, main: Callable[..., None], *arguments: Any) -> None:
        """Start the process.

        Args:
            main: A module-level function.
            arguments: Further arguments, which must be picklable.
        """
        self.pipe, there = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_run, args=(main, there, log_level(), *arguments), daemon=True)
        with _interrupts_ignored():
            self._process.start()
        there.close()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid or 0

    def send(self, message: Any) -> None:
        """Send a message. Raises ChildEndedError."""
        try:
            self.pipe.send(message)
        except OSError:
            raise ChildEndedError(self._how_it_ended()) from None

    def receive(self) -> Any:
        """Wait for a message; a log record is logged and returned as `Logged`. Raises ChildEndedError."""
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise ChildEndedError(self._how_it_ended()) from None
        if isinstance(message, Logged):
            log_here(message)
        return message

    def terminate(self) -> None:
        """Ask the process to clean up and end."""
        self._process.terminate()

    def end(self, *, wait: bool = True) -> None:
        """Close the pipe and kill the process, if `wait` only after it has had some seconds to end by itself."""
        self.pipe.close()
        if wait:
            self._process.join(_LAST_WORDS_SECONDS)
        self._process.kill()
        self._process.join()

    def _how_it_ended(self) -> str:
        self._process.join(_LAST_WORDS_SECONDS)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        if -code == signal.SIGKILL:
            return "was killed, perhaps because memory ran out"
        return f"crashed ({signal.Signals(-code).name})"


def _run(main: Callable[..., None], pipe: connection.Connection, level: int, *arguments: Any) -> None:
    # Ctrl-C reaches all processes of a terminal, but the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main(pipe.recv, send_log(pipe, level), *arguments)


def _exit(number: int, _: object) -> None:
    """Exit by an exception, so that temporary files are removed."""
    sys.exit(128 + number)


def _end_with_parent() -> None:
    """Exit at once when the parent process is gone: nobody would record the result."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


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
