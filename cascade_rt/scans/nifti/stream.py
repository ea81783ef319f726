"""Stream the voxels of a NIfTI file in stored order, up to the end of the file.

gzip verifies its checksum at the end of the stream, not at the last voxel, so a flipped bit is detected only by reading
on. A file therefore counts as read only after `finish` has returned.
"""

import io
import os
from types import TracebackType
from typing import Self

from cascade_rt.common.hashing import FileRecord, HashedFile
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.errors import InputWarning
from cascade_rt.scans.nifti.foreign import describe
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.gunzip import MAGIC, GunzipStream
from cascade_rt.scans.nifti.header import NiftiHeader, header_length, parse_header
from cascade_rt.scans.nifti.names import split_suffix
from cascade_rt.scans.nifti.options import ScanOptions

_LARGEST_DEFLATE_RATIO = 1032
_TRAILING_BYTES = 1 << 20
"""Maximum number of trailing bytes after the image. More would be another image or a decompression bomb."""
# Small enough that decompressed bytes are still in the CPU cache when they are copied into the buffer.
_STEP_BYTES = 256 << 10
_SHORTEST_HEADER = 348


class NiftiStream:
    """An open NIfTI file whose header has been checked. Use inside `input_gate`, which adds the file name to errors.

    Raises:
        RejectedFile, OSError, EOFError and decompression errors: The file cannot be used.
    """

    header: NiftiHeader

    def __init__(self, path: str | os.PathLike[str], options: ScanOptions) -> None:
        self._path = os.fspath(path)
        self._hashed = _open_hashed(self._path)
        self._file = io.BufferedReader(self._hashed)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            if self._size == 0:
                raise RejectedFile("E_EMPTY", "the file is empty; copy it again")
            self._compressed = self._file.peek(2)[:2] == MAGIC
            self._stream = GunzipStream(self._file) if self._compressed else self._file
            self._position = 0
            self.header = parse_header(self._read_header(), options)
            self._check_size(options)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

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
        warnings = [*self.header.warnings, *self._extension_warnings()]
        if trailing:
            warnings.append(InputWarning("W_TRAILING", "the file has trailing data after the image; it is ignored"))
        return tuple(warnings)

    def record(self) -> FileRecord:
        """Read the raw file to its end, and return the hash and the size of the bytes read."""
        return self._hashed.record()

    def _read_header(self) -> bytes:
        start = self._read_up_to(_SHORTEST_HEADER)
        if not start:
            raise RejectedFile("E_EMPTY", "the compressed file is empty; copy it again")
        try:
            length = header_length(start)
        except RejectedFile as refusal:
            if refusal.code == "E_NOT_NIFTI" and self._path.lower().endswith(".gz") and not self._compressed:
                sentence = f"the file is named .gz but is not compressed with gzip ({describe(start)})"
                raise RejectedFile("E_NOT_GZIP", f"{sentence}; copy the scan again") from None
            raise
        block = start + self._read_up_to(length - len(start))
        if len(block) < length:
            raise RejectedFile("E_TRUNCATED", "the file is truncated inside its header; copy it again")
        return block

    def _check_size(self, options: ScanOptions) -> None:
        """Refuse an image that is too large or cannot fit in a file of this size, before any memory is allocated."""
        header = self.header
        voxels = header.volume_bytes // header.dtype.itemsize
        if voxels > options.max_voxels:
            sentence = f"the image has {voxels:,} voxels, but only {options.max_voxels:,} are allowed"
            raise RejectedFile("E_TOO_LARGE", f"{sentence}; crop it or allow more with `max_voxels`")
        most = self._size * _LARGEST_DEFLATE_RATIO if self._compressed else self._size
        if header.image_offset > most:
            raise RejectedFile("E_OFFSET", "its voxel offset is past the end of the file; copy or export it again")
        if header.end > most and self._compressed:
            sentence = f"its header claims {_size(header.end)}, more than {_size(self._size)} of gzip can hold"
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

    def _read_up_to(self, length: int) -> bytes:
        block = memoryview(bytearray(length))
        filled = 0
        while filled < length and (count := self._stream.readinto(block[filled:])):
            filled += count
        self._position += filled
        return bytes(block[:filled])

    def _skip_to(self, position: int) -> None:
        scratch = memoryview(bytearray(min(_STEP_BYTES, max(position - self._position, 0))))
        while self._position < position:
            self._read_some(scratch[: position - self._position])

    def _count_trailing(self) -> int:
        """Count the trailing bytes after the image, reading to the end of the file or until the limit is exceeded."""
        if not isinstance(self._stream, GunzipStream):
            return self._size - self.header.end
        scratch = memoryview(bytearray(_STEP_BYTES))
        trailing = 0
        while trailing <= _TRAILING_BYTES and (count := self._stream.readinto(scratch)):
            trailing += count
        return trailing or int(self._stream.garbage_follows)

    def _extension_warnings(self) -> list[InputWarning]:
        suffix = split_suffix(self._path)[1].lower()
        if suffix == (".nii" if self._compressed else ".nii.gz"):
            how = "compressed" if self._compressed else "not compressed"
            return [InputWarning("W_EXT_MISMATCH", f"the file is named {suffix} but is {how}; it is read anyway")]
        return []

    def _truncated(self, present: int) -> RejectedFile:
        expected, found = _size(self.header.end), _size(present)
        if expected == found:
            expected, found = f"{self.header.end:,} bytes", f"{present:,} bytes"
        sentence = f"the file is truncated ({expected} expected, {found} found)"
        return RejectedFile("E_TRUNCATED", f"{sentence}; copy it again")


def _open_hashed(path: str) -> HashedFile:
    """Open a regular file. Folders, pipes and devices are refused, because reading them could block or never end."""
    try:
        return HashedFile(path)
    except NotAPlainFileError as error:
        raise RejectedFile("E_NOT_A_FILE", f"{error}; choose a .nii or .nii.gz file") from None


def _size(count: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= 10 * unit:
            return f"{count // unit} {name}"
    return f"{count} bytes"
