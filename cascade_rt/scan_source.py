"""Scans whose first slices can be used while the others are still being read.

A thread reads a file; whoever computes waits for the slices that it needs next. Decompression releases the interpreter,
so both make progress at the same time.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from cascade_rt.volume import Volume, read_volume

SLICES_PER_STEP = 8
"""Slices that are read before those who wait are told; a scan that is not wanted any more is read no further."""


class ScanSource(Protocol):
    """A scan on its way into memory."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def voxels(self) -> npt.NDArray[np.int16]:
        """`[z, row, col]`, HU; slices hold anything until `wait_for` has returned for them."""
        ...

    def wait_for(self, stop: int) -> None:
        """Return when the slices before `stop` are there.

        Raises:
            InputError: They cannot be read.
        """
        ...

    def finish(self) -> Volume:
        """Return the whole scan, when it was read to the end of its file and found intact.

        Raises:
            InputError: It is not.
        """
        ...


class ScanReader(Protocol):
    """Reads one file, in order, in the thread that calls it."""

    @property
    def name(self) -> str:
        """What reports call the scan."""
        ...

    @property
    def voxels(self) -> npt.NDArray[np.int16]:
        """As in `ScanSource`."""
        ...

    def read_until(self, stop: int) -> None:
        """Read at least the slices before `stop`."""
        ...

    def finish(self) -> Volume:
        """Read what is left of the file, and check it."""
        ...


class WholeFile:
    """Reads a file whole when it is opened: a `ScanReader`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._volume = read_volume(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    @property
    def name(self) -> str:
        """What reports call the scan."""
        return self._volume.name

    @property
    def voxels(self) -> npt.NDArray[np.int16]:
        """All of it is there."""
        return self._volume.voxels

    def read_until(self, stop: int) -> None:
        """All of it is there."""

    def finish(self) -> Volume:
        """All of it is read."""
        return self._volume


class ScanInBackground:
    """A scan that a thread reads: a `ScanSource`.

    An error of the reader is raised, as it is, in the thread that asks for what could not be read.
    """

    def __init__(self, open_reader: Callable[[], AbstractContextManager[ScanReader]], threads: Executor) -> None:
        """Begin to read.

        Args:
            open_reader: Opens the file; called in the other thread.
            threads: Where it is read; scans that share one thread are read one after the other.
        """
        self._open_reader = open_reader
        self._changed = threading.Condition()
        self._name = ""
        self._voxels = np.empty((0, 0, 0), dtype=np.int16)
        self._slices_there = -1
        self._over = False
        self._unwanted = False
        self._volume: Future[Volume | None] = threads.submit(self._read)

    @property
    def name(self) -> str:
        """What reports call the scan; waits for its header."""
        self.wait_for(0)
        return self._name

    @property
    def voxels(self) -> npt.NDArray[np.int16]:
        """`[z, row, col]` (see `ScanSource`); waits for the header."""
        self.wait_for(0)
        return self._voxels

    def wait_for(self, stop: int) -> None:
        """Wait for slices (see `ScanSource`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._slices_there >= stop or self._over)
            if self._slices_there >= stop:
                return
        self.finish()

    def finish(self) -> Volume:
        """Wait for the end of the file (see `ScanSource`)."""
        volume = self._volume.result()
        if volume is None:
            raise RuntimeError("the scan was closed before it was read")
        return volume

    def close(self) -> None:
        """Read no further; returns when the file is closed."""
        self._unwanted = True
        self._volume.cancel()
        wait([self._volume])

    def _read(self) -> Volume | None:
        try:
            with self._open_reader() as reader:
                self._name, self._voxels = reader.name, reader.voxels
                self._tell(0)
                total = len(self._voxels)
                for first in range(0, total, SLICES_PER_STEP):
                    if self._unwanted:
                        return None
                    stop = min(first + SLICES_PER_STEP, total)
                    reader.read_until(stop)
                    self._tell(stop)
                return reader.finish()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _tell(self, slices_there: int) -> None:
        with self._changed:
            self._slices_there = slices_there
            self._changed.notify_all()
