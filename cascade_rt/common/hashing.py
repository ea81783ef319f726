"""SHA-256 of files, to tell whether a file is the one that was written or read."""

import hashlib
import io
import os
from dataclasses import dataclass
from typing import Any

from cascade_rt.common.plain_file import open_plain_file

_STEP_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Hash and size of a file at the time it was read."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when it was hashed, from which a later look can tell without reading whether it has changed."""

    record: FileRecord
    modified_ns: int
    """Time of its last change, in ns since the epoch."""

    @property
    def stamp(self) -> list[int]:
        """Size in bytes and time of change, as plain values (see `stamp`)."""
        return [self.record.bytes, self.modified_ns]


class HashedFile(io.RawIOBase):
    """A file that is read once, sequentially, and hashed while it is read.

    The record describes the bytes actually read, even if the path refers to another file by then.

    Raises:
        NotAPlainFileError: The path is a folder, a pipe or a device.
        OSError: The file does not exist or cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open_plain_file(path, follow_links=True).detach()
        self._hash, self._bytes = hashlib.sha256(), 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._file.fileno()

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer and return their number; 0 at the end of the file."""
        view = memoryview(buffer).cast("B")
        count = self._file.readinto(view) or 0
        self._hash.update(view[:count])
        self._bytes += count
        return count

    def record(self) -> FileRecord:
        """Read the rest of the file and return the hash and size of everything read."""
        scratch = bytearray(_STEP_BYTES)
        while self.readinto(scratch):
            pass
        return FileRecord(self._hash.hexdigest(), self._bytes)

    def close(self) -> None:
        """Close the file."""
        # If opening failed, the garbage collector still calls close().
        if hasattr(self, "_file"):
            self._file.close()
        super().close()


def stamp(path: str | os.PathLike[str]) -> list[int] | None:
    """Return the size in bytes and the time of change in ns of a file, or None if there is none or no way to it."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def file_state(path: str | os.PathLike[str]) -> FileState:
    """Hash a file and note its time of change. Raises like `HashedFile`."""
    with HashedFile(path) as file:
        modified_ns = os.fstat(file.fileno()).st_mtime_ns
        return FileState(file.record(), modified_ns)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content in hexadecimal. Raises like `HashedFile`."""
    return record_file(path).sha256


def record_file(path: str | os.PathLike[str]) -> FileRecord:
    """Return the hash and size of a file. Raises like `HashedFile`."""
    with HashedFile(path) as file:
        return file.record()
