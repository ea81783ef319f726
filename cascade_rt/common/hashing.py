"""SHA-256 of files, to tell whether a file is the one that was written or read."""

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file

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
    stamp: list[int]
    """See `stamp`."""


class HashedFile(io.RawIOBase):
    """A file that is read once, sequentially, and hashed while it is read.

    The record describes the bytes actually read, even if the path refers to another file by then.

    Raises:
        NotAPlainFileError: The path is a folder, a pipe or a device.
        OSError: The file does not exist or cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], after: "HashedFile | None" = None) -> None:
        """Open a file.

        Args:
            path: The file.
            after: A file that was read before. The record then describes what was read of it, followed by this file.
        """
        self._file = open_plain_file(path, follow_links=True).detach()
        self._hash, self._bytes = hashlib.sha256(), 0
        if after is not None:
            self._hash, self._bytes = after._hash.copy(), after._bytes

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
    """Return what changes whenever a file is written or replaced, or None if there is no file or no way to it.

    Returns:
        Size in bytes, modification time in ns, time of the last change of the inode in ns, and inode number. The
        modification time alone can be set by anybody: archives and images give many files the same one.
    """
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None


def stamp_of(status: os.stat_result) -> list[int]:
    """Return the stamp of a file that has been looked at (see `stamp`)."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def joint_stamp(stamps: Sequence[list[int] | None]) -> list[int] | None:
    """Return one stamp for several files, or None if one of them is missing.

    Returns:
        The sum of their sizes in bytes, the last modification time and the last change of an inode in ns, and a hash of
        all stamps.
    """
    found = [each for each in stamps if each is not None]
    if len(found) < len(stamps) or not found:
        return None
    digest = hashlib.sha256(repr(found).encode()).digest()
    sizes, modified, changed, _ = zip(*found, strict=True)
    return [sum(sizes), max(modified), max(changed), int.from_bytes(digest[:6], "big")]


def file_state(path: str | os.PathLike[str]) -> FileState:
    """Hash a file and note its stamp. Raises like `HashedFile`."""
    with HashedFile(path) as file:
        found = stamp_of(os.fstat(file.fileno()))
        return FileState(file.record(), found)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content in hexadecimal. Raises like `HashedFile`."""
    return record_file(path).sha256


def record_file(path: str | os.PathLike[str]) -> FileRecord:
    """Return the hash and size of a file. Raises like `HashedFile`."""
    with HashedFile(path) as file:
        return file.record()


def is_unchanged(path: str | os.PathLike[str], sha256: str | None, known: Sequence[int] | None) -> bool:
    """Return whether a file is still what was recorded of it.

    Some network file systems change a file's times later, so another stamp alone does not mean another file.

    Args:
        path: The file. One that is missing or cannot be read counts as changed; whoever uses it reports why.
        sha256: Its recorded hash; None if none was recorded, which counts as changed.
        known: Its recorded stamp, which if it is still the same saves reading the file; None to compare hashes.
    """
    if sha256 is None:
        return False
    if known is not None and stamp(path) == list(known):
        return True
    try:
        return file_sha256(path) == sha256
    except (OSError, NotAPlainFileError):
        return False
