"""Who may use engines, and when: one thread after the other, in the process that opened them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cascade_rt.errors import UsageError


class Turns:
    """Threads of one process take turns; another process has none.

    A forked process has a copy of the engines without the threads that compute in them, so that a run in it would never
    end; so would waiting for a turn that a thread had when the process was forked.
    """

    def __init__(self) -> None:
        # A thread that is called back within its turn may use the engines again.
        self._lock = threading.RLock()
        self._process = os.getpid()

    @property
    def elsewhere(self) -> bool:
        """Whether this is another process than that of the engines."""
        return os.getpid() != self._process

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn, and have it inside.

        Raises:
            UsageError: This is another process than that of the engines (`E_OTHER_PROCESS`).
        """
        if self.elsewhere:
            raise another_process()
        with self._lock:
            yield


def another_process() -> UsageError:
    """What is raised where engines of one process are wanted in another."""
    return UsageError(
        "these engines were opened in another process, and work in no other; open the bundle in each process",
        code="E_OTHER_PROCESS",
    )
