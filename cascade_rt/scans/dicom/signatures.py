"""Recognize DICOM files and zip archives by their first bytes."""

from pathlib import Path

from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file
from cascade_rt.errors import InputError

_SIGNATURE_BYTES = 132
_FIRST_TYPES = (b"UL", b"UI", b"CS", b"DA", b"TM", b"SH", b"LO", b"OB")
"""Value representations (VR) of the first elements of groups 2 and 8."""
_LONGEST_FIRST = 64
"""Maximum length in bytes of such a first element, which is a name or a date."""
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


def is_dicom(path: Path) -> bool:
    """Return whether the first bytes of a file identify it as DICOM.

    Raises:
        InputError: The file cannot be read.
    """
    return starts_dicom(first_bytes(path))


def first_bytes(path: Path) -> bytes:
    """Read the first bytes of a file, which identify its format. Raises InputError if that is not possible."""
    try:
        with open_plain_file(path, follow_links=True) as file:
            return file.read(_SIGNATURE_BYTES)
    except (NotAPlainFileError, OSError) as error:
        raise unreadable(str(path), error) from error


def unreadable(shown: str, error: NotAPlainFileError | OSError) -> InputError:
    """Return the error for a file of a series that cannot be opened."""
    if isinstance(error, NotAPlainFileError):
        return InputError(f"{shown}: {error}; remove it from the scan folder", code="E_NOT_A_FILE")
    reason = f"cannot be read ({error.strerror})"
    return InputError(f"{shown}: {reason}; check its permissions and the disk", code="E_READ")


def starts_dicom(head: bytes) -> bool:
    """Return whether the first bytes of a file, 132 or more, are those of DICOM.

    Older files lack the preamble and the DICM prefix. They begin with an element of group 2 or 8: with explicit VR it
    names a VR of two letters, with implicit VR a length, which is short in these groups.
    """
    if head[128:_SIGNATURE_BYTES] == b"DICM":
        return True
    group, kind, length = head[:2], head[4:6], int.from_bytes(head[4:8], "little")
    begins = len(head) >= _SIGNATURE_BYTES and group in (b"\x02\x00", b"\x08\x00")
    return begins and (kind in _FIRST_TYPES or length <= _LONGEST_FIRST)


def starts_zip(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a zip archive."""
    return head[:4] in _ZIP_STARTS
