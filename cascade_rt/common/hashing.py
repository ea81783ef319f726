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


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content in hexadecimal. Raises like `HashedFile`."""
    return record_file(path).sha256


def record_file(path: str | os.PathLike[str]) -> FileRecord:
    """Return the hash and size of a file. Raises like `HashedFile`."""
    with HashedFile(path) as file:
        return file.record()
