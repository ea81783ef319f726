"""Open zip archives of DICOM files. Nothing is extracted, and sizes are bounded before anything is decompressed."""

import os
import struct
import zipfile
from io import BufferedReader
from pathlib import Path

from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file
from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.signatures import unreadable
from cascade_rt.scans.dicom.sources import LARGEST_FILE, ZipMember

MOST_MEMBERS = 50_000
LARGEST_TOTAL = 16 << 30
"""Maximum size of all members together in bytes, decompressed."""
_LARGEST_DIRECTORY = 32 << 20
"""Maximum size in bytes of the list of members: room for 50,000 with names of 500 bytes."""
_END, _END_BYTES, _LONGEST_COMMENT = b"PK\x05\x06", 22, 0xFFFF
_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_IN_64_BITS = (0xFFFF, 0xFFFFFFFF)


class ZipArchive:
    """An open archive and its members."""

    def __init__(self, path: Path) -> None:
        """Open an archive, and bound the number and the sizes of its members.

        Raises:
            InputError: It cannot be read, is damaged, or is too large.
        """
        shown = os.fspath(path)
        try:
            self._file = open_plain_file(path, follow_links=True)
        except (NotAPlainFileError, OSError) as error:
            raise unreadable(shown, error) from error
        try:
            _check_directory(self._file, shown)
            self._archive = zipfile.ZipFile(self._file)
            entries = [entry for entry in self._archive.infolist() if not entry.is_dir()]
            _check_sizes(entries, shown)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
            self._file.close()
            raise InputError(f"{shown}: the archive is damaged; copy it again", code="E_CORRUPT") from error
        except InputError:
            self._file.close()
            raise
        self.members = [
            ZipMember(self._archive, entry, shown, number)
            for number, entry in enumerate(entries, start=1)
            if not _is_hidden(entry.filename)
        ]

    def close(self) -> None:
        """Close the file."""
        self._archive.close()
        self._file.close()


def _is_hidden(name: str) -> bool:
    """Return whether a member is metadata that macOS leaves beside the real files."""
    parts = name.replace("\\", "/").split("/")
    return parts[-1].startswith(".") or parts[0] == "__MACOSX"


def _check_directory(file: BufferedReader, shown: str) -> None:
    """Refuse a list of members that is too long to be parsed."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise InputError(f"{shown}: the archive is truncated; copy it again", code="E_TRUNCATED")
    count, directory = struct.unpack_from("<HI", tail, at + 10)
    has_more = tail[max(0, at - _LOCATOR_BYTES) : at].startswith(_LOCATOR)
    if has_more or count == _IN_64_BITS[0] or directory == _IN_64_BITS[1]:
        raise _too_large(shown, f"more than {MOST_MEMBERS:,} files, or more than 4 GB")
    if directory > _LARGEST_DIRECTORY or count > MOST_MEMBERS:
        raise _too_large(shown, f"{count:,} files")


def _check_sizes(entries: list[zipfile.ZipInfo], shown: str) -> None:
    if len(entries) > MOST_MEMBERS:
        raise _too_large(shown, f"{len(entries):,} files")
    if any(entry.file_size > LARGEST_FILE for entry in entries):
        raise _too_large(shown, f"a file of more than {LARGEST_FILE:,} bytes")
    total = sum(entry.file_size for entry in entries)
    if total > LARGEST_TOTAL:
        raise _too_large(shown, f"{total:,} bytes in all")


def _too_large(shown: str, what: str) -> InputError:
    return InputError(
        f"{shown}: the archive would unpack to {what}, too much for one study; pack one study into it",
        code="E_TOO_LARGE",
    )
