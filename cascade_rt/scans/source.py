"""Scans whose first slices can be used while the others are still being read.

A thread reads a file; whoever computes waits for the slices that it needs next. Decompression releases the interpreter,
so both make progress at the same time.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.volume import ScanReader, Volume

SLICES_PER_STEP = 8
"""Slices that are read before those who wait are told; a scan that is not wanted any more is read no further."""


class ScanSource(Protocol):
    """A scan that can be segmented, in memory or still on its way into it; a `Volume` is one."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def voxels(self) -> npt.NDArray[np.int16]:
        """`[z, row, col]`, HU; slices hold anything until `wait_for` has returned for them."""
        ...

    @property
    def canonical_grid(self) -> CanonicalGrid:
        """Shape and affine of the voxels."""
        ...

    @property
    def head_first(self) -> bool:
        """Whether the last slices come first."""
        ...

    def wait_for(self, part: slice) -> None:
        """Return when these slices are there.

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


class ScanInBackground:
    """A scan that a thread reads: a `ScanSource`.

    An error of the reader is raised, as it is, in the thread that asks for what could not be read.
    """

    def __init__(self, open_reader: Callable[[], ScanReader], threads: Executor) -> None:
        """Begin to read.

        Args:
            open_reader: Opens the file; called in the other thread.
            threads: Where it is read; scans that share one thread are read one after the other.
        """
        self._open_reader = open_reader
        self._changed = threading.Condition()
        self._opened: Volume | None = None
        self._there = range(0)
        self._over = False
        self._unwanted = False
        self._finished: Future[Volume | None] = threads.submit(self._read)

    @property
    def name(self) -> str:
        """What reports call the scan; waits for its header."""
        return self._header().name

    @property
    def voxels(self) -> npt.NDArray[np.int16]:
        """`[z, row, col]` (see `ScanSource`); waits for the header."""
        return self._header().voxels

    @property
    def canonical_grid(self) -> CanonicalGrid:
        """Shape and affine of the voxels; waits for the header."""
        return self._header().canonical_grid

    @property
    def head_first(self) -> bool:
        """Whether the last slices come first; waits for the header."""
        return self._header().grid.slab_direction < 0

    def wait_for(self, part: slice) -> None:
        """Wait for slices (see `ScanSource`)."""
        self._wait_until(lambda: self._there.start <= part.start and part.stop <= self._there.stop)

    def finish(self) -> Volume:
        """Wait for the end of the file (see `ScanSource`)."""
        volume = self._finished.result()
        if volume is None:
            raise RuntimeError("the scan was closed before it was read")
        return volume

    def close(self) -> None:
        """Read no further, or not at all; returns when the file is closed."""
        self._unwanted = True
        if not self._finished.cancel():
            wait([self._finished])

    def _header(self) -> Volume:
        self._wait_until(lambda: self._opened is not None)
        return self._opened or self.finish()

    def _wait_until(self, here: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: here() or self._over)
            if here() and not self._over:
                return
        # A scan that is known to be unfit is worth no more work, not even on slices that are there.
        self.finish()

    def _read(self) -> Volume | None:
        try:
            with self._open_reader() as reader:
                self._tell(reader.volume, range(0))
                for part in reader.batches(SLICES_PER_STEP):
                    if self._unwanted:
                        return None
                    self._tell(reader.volume, _joined(self._there, part))
                return reader.finish()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _tell(self, opened: Volume, there: range) -> None:
        with self._changed:
            self._opened, self._there = opened, there
            self._changed.notify_all()


def _joined(there: range, part: slice) -> range:
    """The slices that are there with those that have followed above or below."""
    return range(min(there.start, part.start), max(there.stop, part.stop)) if there else range(part.start, part.stop)
