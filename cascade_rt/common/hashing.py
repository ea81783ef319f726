"""The hash that tells whether a file is the one that was written, or the one that was read."""

import hashlib
import io
import os
from dataclasses import dataclass
from typing import Any

from cascade_rt.common.plain_file import open_plain_file

_STEP_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was when it was looked at."""

    sha256: str
    bytes: int


class HashedFile(io.RawIOBase):
    """A file that is read once from its start to its end and hashed on the way.

    What it says is of the bytes that were read: another file may have the name by the time the reading ends.

    Raises:
        NotAPlainFileError: It is a folder, a pipe or a device.
        OSError: It is not there, or cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open_plain_file(path, follow_links=True).detach()
        self._hash, self._bytes = hashlib.sha256(), 0

    def readable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor of the open file."""
        return self._file.fileno()

    def readinto(self, buffer: Any) -> int:
        """Fill the start of a buffer of bytes, and return how many these are; 0 at the end of the file."""
        view = memoryview(buffer).cast("B")
        count = self._file.readinto(view) or 0
        self._hash.update(view[:count])
        self._bytes += count
        return count

    def record(self) -> FileRecord:
        """Read what is left, and return hash and size of all that was read."""
        scratch = bytearray(_STEP_BYTES)
        while self.readinto(scratch):
            pass
        return FileRecord(self._hash.hexdigest(), self._bytes)

    def close(self) -> None:
        """Close the file."""
        # A file that could not be opened is closed as well, when it is forgotten.
        if hasattr(self, "_file"):
            self._file.close()
        super().close()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal; raises like `HashedFile`."""
    return record_file(path).sha256


def record_file(path: str | os.PathLike[str]) -> FileRecord:
    """Hash and size of a file; raises like `HashedFile`."""
    with HashedFile(path) as file:
        return file.record()
