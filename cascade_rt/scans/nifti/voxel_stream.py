"""Stream the voxels of a scan file in stored order, up to the end of the file.

gzip verifies its checksum at the end of the stream, not at the last voxel, so a flipped bit is detected only by reading
on. A file therefore counts as read only after `finish` has returned.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cascade_rt.common.hashing import FileRecord, HashedFile
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.errors import InputWarning
from cascade_rt.scans.nifti.decompression import DecompressedStream
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.options import ScanOptions

_TRAILING_BYTES = 1 << 20
"""Maximum number of trailing bytes after the image. More would be another image or a decompression bomb."""
# Small enough that decompressed bytes are still in the CPU cache when they are copied into the buffer.
_STEP_BYTES = 256 << 10


@dataclass(frozen=True, eq=False, slots=True)
class ImageHeader:
    """A checked header: its image can be read and placed in the world."""

    shape: tuple[int, int, int]
    """Voxels along `[i, j, k]` of one volume."""
    dtype: np.dtype[Any]
    """The stored data type, with its byte order."""
    scaling: tuple[float, float]
    """Slope and intercept, which turn stored values into real ones."""
    image_offset: int
    """The byte offset of the image in the stream that holds it."""
    volume: int
    """Index of the selected volume."""
    volumes: int
    """The number of volumes in the file."""
    affine: npt.NDArray[np.float64]
    """4x4, from the index (i, j, k) to world mm (RAS+)."""
    geometry: Mapping[str, npt.NDArray[Any]]
    """The NIfTI header fields that place the voxels in the world, with meaningless content removed."""
    warnings: tuple[InputWarning, ...]

    @property
    def volume_bytes(self) -> int:
        """Size of one volume in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def voxel_offset(self) -> int:
        """The byte offset of the selected volume."""
        return self.image_offset + self.volume * self.volume_bytes

    @property
    def end(self) -> int:
        """The byte offset just past the last volume."""
        return self.image_offset + self.volumes * self.volume_bytes


class VoxelStream(ABC):
    """An open scan file whose header has been checked. Use inside `input_gate`, which adds the file name to errors.

    A subclass opens the file, sets the attributes and calls `_check_size`.

    Raises:
        RejectedFile, OSError, EOFError and decompression errors: The file cannot be used.
    """

    header: ImageHeader
    _stream: "BufferedReader[Any] | DecompressedStream"
    """Holds the image at the offsets of the header."""
    _position: int
    """Number of bytes read from the stream."""
    _size: int
    """Number of bytes that the stream, or its compressed content, has in the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @abstractmethod
    def record(self) -> FileRecord:
        """Read the raw file to its end, and return the hash and the size of the bytes read."""

    def read_into(self, buffer: memoryview) -> None:
        """Fill a byte buffer with the next voxels of the volume.

        Raises:
            RejectedFile: The file ends too early.
        """
        if self._position < self.header.voxel_offset:
            self._skip_to(self.header.voxel_offset)
        while buffer:
            count = self._read_some(buffer[:_STEP_BYTES])
            buffer = buffer[count:]

    def finish(self) -> tuple[InputWarning, ...]:
        """Read to the end of the file so that its checksum is verified.

        Returns:
            The warnings about the whole file.

        Raises:
            RejectedFile: Too many trailing bytes follow the image.
        """
        self._skip_to(self.header.end)
        trailing = self._count_trailing()
        if trailing > _TRAILING_BYTES:
            sentence = (
                f"more than {_size(_TRAILING_BYTES)} of trailing data follow the image, so its header must be wrong"
            )
            raise RejectedFile("E_TRAILING", f"{sentence}; export it again")
        warnings = [*self.header.warnings, *self._name_warnings()]
        if trailing:
            warnings.append(InputWarning("W_TRAILING", "the file has trailing data after the image; it is ignored"))
        return tuple(warnings)

    def _name_warnings(self) -> tuple[InputWarning, ...]:
        """Return warnings about the name of the file."""
        return ()

    def _check_size(self, options: ScanOptions) -> None:
        """Refuse an image that is too large or cannot fit in a file of this size, before any memory is allocated."""
        header = self.header
        voxels = header.volume_bytes // header.dtype.itemsize
        if voxels > options.max_voxels:
            sentence = f"the image has {voxels:,} voxels, but only {options.max_voxels:,} are allowed"
            raise RejectedFile("E_TOO_LARGE", f"{sentence}; crop it or allow more with `max_voxels`")
        packed = self._stream if isinstance(self._stream, DecompressedStream) else None
        most = self._size * packed.largest_ratio if packed else self._size
        if header.image_offset > most:
            raise RejectedFile("E_OFFSET", "its voxel offset is past the end of the file; copy or export it again")
        if header.end > most and packed:
            sentence = f"its header claims {_size(header.end)}, more than {_size(self._size)} of {packed.name} can hold"
            raise RejectedFile("E_SIZE_LIE", f"{sentence}; copy or export it again")
        if header.end > most:
            raise self._truncated(self._size)

    def _read_some(self, buffer: memoryview) -> int:
        try:
            count = self._stream.readinto(buffer)
        except EOFError:
            count = 0
        if count == 0:
            raise self._truncated(self._position)
        self._position += count
        return count

    def _skip_to(self, position: int) -> None:
        scratch = memoryview(bytearray(min(_STEP_BYTES, max(position - self._position, 0))))
        while self._position < position:
            self._read_some(scratch[: position - self._position])

    def _count_trailing(self) -> int:
        """Count the trailing bytes after the image, reading to the end of the file or until the limit is exceeded."""
        if not isinstance(self._stream, DecompressedStream):
            return self._size - self.header.end
        scratch = memoryview(bytearray(_STEP_BYTES))
        trailing = 0
        while trailing <= _TRAILING_BYTES and (count := self._stream.readinto(scratch)):
            trailing += count
        return trailing or int(self._stream.garbage_follows)

    def _truncated(self, present: int) -> RejectedFile:
        expected, found = _size(self.header.end), _size(present)
        if expected == found:
            expected, found = f"{self.header.end:,} bytes", f"{present:,} bytes"
        sentence = f"the file is truncated ({expected} expected, {found} found)"
        return RejectedFile("E_TRUNCATED", f"{sentence}; copy it again")


def open_hashed(path: str) -> HashedFile:
    """Open a regular file. Folders, pipes and devices are refused, because reading them could block or never end."""
    try:
        return HashedFile(path)
    except NotAPlainFileError as error:
        raise RejectedFile("E_NOT_A_FILE", f"{error}; choose a scan file") from None


def _size(count: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= 10 * unit:
            return f"{count // unit} {name}"
    return f"{count} bytes"
