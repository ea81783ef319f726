"""Serialize access to engines: one thread at a time, only in the process that opened them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cascade_rt.errors import UsageError


class Turns:
    """Lets the threads of one process take turns, and rejects other processes.

    A forked process has a copy of the engines but not of their compute threads, so a run in it would hang. Waiting for
    a lock that a thread held at the time of the fork would hang as well.
    """

    def __init__(self) -> None:
        # Reentrant, because a callback within a turn may use the engines again.
        self._lock = threading.RLock()
        self._process = os.getpid()

    @property
    def elsewhere(self) -> bool:
        """Whether this process is not the one that opened the engines."""
        return os.getpid() != self._process

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn and hold it inside the block.

        Raises:
            UsageError: This process is not the one that opened the engines (`E_OTHER_PROCESS`).
        """
        if self.elsewhere:
            raise another_process()
        with self._lock:
            yield


def another_process() -> UsageError:
    """Return the error to raise when engines are used outside the process that opened them."""
    return UsageError(
        "these engines were opened in another process and work only there; open the bundle in each process",
        code="E_OTHER_PROCESS",
    )
