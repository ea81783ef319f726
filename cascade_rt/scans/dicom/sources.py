"""Files and zip members that a series is read from: first their heads, later the whole of those that are needed.

Every byte of a file is read from disk once. The head stays in memory until the rest is read, and a file that has been
replaced in between is refused.
"""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from cascade_rt.common.hashing import FileRecord, stamp_of
from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file
from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.signatures import unreadable

HEAD_BYTES = 16 << 10
"""Most headers are shorter."""
LARGEST_FILE = 4 << 30
"""Maximum size of one file in bytes. It is held in memory while its images are decoded."""


class SourceFile(Protocol):
    """One DICOM file, wherever it lies."""

    @property
    def shown(self) -> str:
        """How messages name it."""
        ...

    @property
    def short(self) -> str:
        """How messages name it beside another file of the same scan."""
        ...

    @property
    def size(self) -> int:
        """Its size in bytes, known once its head has been read."""
        ...

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """Read its first bytes, or return those read before.

        Raises:
            InputError: It cannot be read.
        """
        ...

    def read(self) -> bytearray:
        """Read the whole of it, and forget the head.

        Raises:
            InputError: It cannot be read, has changed since its head was read, or is too large.
        """
        ...

    def record(self) -> FileRecord:
        """Return the hash and the size of what `read` has returned."""
        ...


class FileOnDisk:
    """A file of a folder (see `SourceFile`)."""

    def __init__(self, path: Path, root: Path | None = None) -> None:
        """Name a file.

        Args:
            path: The file.
            root: The folder that was named by the user. Messages do not name the folders in it, which are often named
                after patients.
        """
        self.path = path
        is_nested = root is not None and path.parent != root
        self.shown, self.short = f"{root}: {path.name}" if is_nested else os.fspath(path), path.name
        self.size = 0
        self._head = b""
        self._stamp: list[int] | None = None
        self._record: FileRecord | None = None

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """Return the first bytes (see `SourceFile`)."""
        known = len(self._head)
        if self._stamp is None or known < min(size, self.size):
            try:
                with open_plain_file(self.path, follow_links=True) as file:
                    self._check_stamp(file.fileno())
                    file.seek(known)
                    self._head += file.read(size - known)
            except (NotAPlainFileError, OSError) as error:
                raise unreadable(self.shown, error) from error
        return self._head

    def read(self) -> bytearray:
        """Return the content (see `SourceFile`)."""
        if self.size > LARGEST_FILE:
            raise _too_large(self.shown, self.size)
        try:
            with open_plain_file(self.path, follow_links=True) as file:
                self._check_stamp(file.fileno())
                content = bytearray(self.size)
                known = len(self._head)
                content[:known] = self._head
                file.seek(known)
                count = file.readinto(memoryview(content)[known:])
        except (NotAPlainFileError, OSError) as error:
            raise unreadable(self.shown, error) from error
        if known + count != self.size:
            raise _changed(self.shown)
        self._head = b""
        self._record = FileRecord(hashlib.sha256(content).hexdigest(), len(content))
        return content

    def record(self) -> FileRecord:
        """Return the hash and the size (see `SourceFile`)."""
        if self._record is None:
            self.read()
        assert self._record is not None  # noqa: S101  for mypy
        return self._record

    def _check_stamp(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if self._stamp is None:
            self._stamp, self.size = stamp_of(status), status.st_size
        elif self._stamp != stamp_of(status):
            raise _changed(self.shown)


class ZipMember:
    """A member of a zip archive (see `SourceFile`). Its name is ignored: it may name the patient, or another folder."""

    def __init__(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, shown: str, number: int) -> None:
        self._archive, self._entry = archive, entry
        self.shown, self.short = f"{shown}: entry {number}", f"entry {number}"
        self.size = entry.file_size
        self._head = b""
        self._record: FileRecord | None = None

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """Return the first bytes (see `SourceFile`)."""
        if len(self._head) < min(size, self.size):
            self._head = self._read(size)
        return self._head

    def read(self) -> bytearray:
        """Return the content (see `SourceFile`)."""
        content = bytearray(self._read(self.size + 1))
        if len(content) != self.size:
            raise _damaged_entry(self.shown)
        self._head = b""
        self._record = FileRecord(hashlib.sha256(content).hexdigest(), len(content))
        return content

    def record(self) -> FileRecord:
        """Return the hash and the size (see `SourceFile`)."""
        if self._record is None:
            self.read()
        assert self._record is not None  # noqa: S101  for mypy
        return self._record

    def _read(self, size: int) -> bytes:
        try:
            with self._archive.open(self._entry) as file:
                return file.read(size)
        except NotImplementedError as error:
            sentence = "is compressed in a way that is not supported; pack the archive again with deflate"
            raise InputError(f"{self.shown}: {sentence}", code="E_ZIP") from error
        except RuntimeError as error:
            raise InputError(f"{self.shown}: is encrypted; pack it again without a password", code="E_ZIP") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise _damaged_entry(self.shown) from error


def _damaged_entry(shown: str) -> InputError:
    return InputError(f"{shown}: is damaged in the archive; copy the archive again", code="E_CORRUPT")


def _changed(shown: str) -> InputError:
    return InputError(f"{shown}: has changed while it was read; wait until it is written, and try again", code="E_READ")


def _too_large(shown: str, size: int) -> InputError:
    sentence = f"has {size:,} bytes, but only {LARGEST_FILE:,} are read"
    return InputError(f"{shown}: {sentence}; is it one image?", code="E_TOO_LARGE")
