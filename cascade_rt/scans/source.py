"""Scans whose first slices can be used while the rest are still being read.

One thread reads the file. The computing thread waits for the slices it needs next. Decompression releases the GIL, so
both make progress at the same time.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.volume import Volume

SLICES_PER_STEP = 8
"""Number of slices read before waiting threads are notified and before the reader checks whether to stop."""


class ScanSource(Protocol):
    """A scan that can be segmented, whether in memory or still being read. A `Volume` is a `ScanSource`."""

    @property
    def name(self) -> str:
        """The name of the scan in reports."""
        ...

    @property
    def voxels(self) -> npt.NDArray[np.int16]:
        """`[z, row, col]`, HU. Slices are undefined until `wait_for` has returned for them."""
        ...

    @property
    def canonical_grid(self) -> CanonicalGrid:
        """The shape and the affine of the voxels."""
        ...

    @property
    def head_first(self) -> bool:
        """Whether the last slices are read first."""
        ...

    def wait_for(self, part: slice) -> None:
        """Wait until these slices are available.

        Raises:
            InputError: The slices cannot be read.
        """
        ...

    def finish(self) -> Volume:
        """Return the whole scan once it has been read to the end of its file and found intact.

        Raises:
            InputError: The file is damaged or is not a CT scan.
        """
        ...


class ScanReader(Protocol):
    """An open scan that is read slice by slice, in whatever format it is stored."""

    @property
    def volume(self) -> Volume:
        """The scan. Its voxels are undefined where they have not been read."""
        ...

    def batches(self, size: int) -> Iterator[slice]:
        """Read the rest of the scan, in the order in which it is stored.

        Args:
            size: Number of slices per batch.

        Yields:
            The slices of `volume` just read, as soon as they are available.

        Raises:
            InputError: The scan is damaged.
        """
        ...

    def finish(self) -> Volume:
        """Read the rest of the scan, check it as a whole, and return it.

        Raises:
            InputError: The scan is damaged or not in Hounsfield units.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class ScanInBackground:
    """A `ScanSource` that is read by a background thread.

    An error of the reader is raised unchanged in the thread that asks for what could not be read.
    """

    def __init__(self, open_reader: Callable[[], ScanReader], threads: Executor) -> None:
        """Start reading.

        Args:
            open_reader: Opens the file. Called in the background thread.
            threads: The executor that runs the reader. Scans that share one thread are read one after another.
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
        """The name of the scan in reports. Waits for the header."""
        return self._header().name

    @property
    def voxels(self) -> npt.NDArray[np.int16]:
        """`[z, row, col]` (see `ScanSource`). Waits for the header."""
        return self._header().voxels

    @property
    def canonical_grid(self) -> CanonicalGrid:
        """The shape and the affine of the voxels. Waits for the header."""
        return self._header().canonical_grid

    @property
    def head_first(self) -> bool:
        """Whether the last slices are read first. Waits for the header."""
        return self._header().grid.slab_direction < 0

    def wait_for(self, part: slice) -> None:
        """Wait until these slices are available (see `ScanSource`)."""
        self._wait_until(lambda: self._there.start <= part.start and part.stop <= self._there.stop)

    def finish(self) -> Volume:
        """Wait for the end of the file, and return the whole scan (see `ScanSource`)."""
        volume = self._finished.result()
        if volume is None:
            raise RuntimeError("the scan was closed before it was read")
        return volume

    def close(self) -> None:
        """Stop reading, or never start. Returns once the file is closed."""
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
        # An unusable scan deserves no more work, so this raises its error even if the slices are available.
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
    """Return the range of available slices, extended by a batch that follows above or below."""
    return range(min(there.start, part.start), max(there.stop, part.stop)) if there else range(part.start, part.stop)
