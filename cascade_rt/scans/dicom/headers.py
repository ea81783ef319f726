"""Parse the headers of DICOM files, without their pixels, and turn what pydicom raises into sentences."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from cascade_rt.common.packages import import_package
from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.sources import HEAD_BYTES, LARGEST_FILE, SourceFile

_LARGEST_HEADER = 256 << 20
"""Maximum size of a header in bytes. That of a multi-frame object describes thousands of frames."""
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
"""Pixels as reals, as doubles and as integers."""
_DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"
_META_START = 132 + 12
"""End of the element that tells how long the rest of the file meta information is."""
_WITHOUT_HEADER = -15


@dataclass(frozen=True, eq=False, slots=True)
class Header:
    """The header of one file."""

    file: SourceFile
    dataset: Any
    """A pydicom `FileDataset` without pixels."""
    pixels_at: int | None
    """Where the element of the pixels begins in the file, or in what it inflates to; None if it has no pixels."""

    @property
    def syntax(self) -> Any:
        """The transfer syntax, a pydicom `UID`, or None if the file does not name one."""
        return self.dataset.file_meta.get("TransferSyntaxUID")


def import_pydicom() -> Any:
    """Import pydicom, and silence its warnings. Raises BackendUnavailableError if it is not installed."""
    pydicom = import_package("pydicom", needed_by="reading DICOM files", extra="dicom")
    # They quote the file and may name the patient. Filters are shared by all threads, so none is set for a while only.
    warnings.filterwarnings("ignore", module="pydicom")
    return pydicom


@contextmanager
def dicom_gate(shown: str) -> Iterator[None]:
    """Turn the errors pydicom raises on a bad file into a one-sentence InputError."""
    import pydicom.errors

    kinds = (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, struct.error, EOFError)
    wrong = (ValueError, TypeError, AttributeError, LookupError, NotImplementedError, RuntimeError)
    try:
        yield
    except (*kinds, *wrong, ArithmeticError, OSError) as error:
        # Messages from pydicom quote the file and may name the patient.
        sentence = "is damaged or cannot be decoded; copy it again"
        raise InputError(f"{shown}: {sentence}", code="E_CORRUPT") from error


def read_header(file: SourceFile) -> Header:
    """Read the header of a file, and no more of the file than that takes.

    Raises:
        InputError: The file cannot be read, or is damaged.
    """
    size = HEAD_BYTES
    while True:
        head = file.head(size)
        dataset, at = _parse(file.shown, plain_content(file.shown, head, size))
        if at is not None or size >= file.size:
            return Header(file, dataset, at)
        if size >= _LARGEST_HEADER:
            raise InputError(f"{file.shown}: its header does not end; export the series again", code="E_CORRUPT")
        size *= 8


def plain_content(shown: str, content: bytes | bytearray, most: int = LARGEST_FILE) -> bytes | bytearray:
    """Return what a file with the deflated transfer syntax inflates to, at most `most` bytes; others as they are.

    Raises:
        InputError: The deflated part is damaged.
    """
    if content[128:136] != b"DICM\x02\0\0\0" or _DEFLATED not in content[_META_START:1024]:
        return content
    end = _META_START + int.from_bytes(content[140:_META_START], "little")
    inflating = zlib.decompressobj(_WITHOUT_HEADER)
    try:
        inflated = inflating.decompress(content[end:], most)
    except zlib.error as error:
        sentence = "its compressed data are damaged; copy it again"
        raise InputError(f"{shown}: {sentence}", code="E_CORRUPT") from error
    return bytearray(content[:end].replace(_DEFLATED, _EXPLICIT) + inflated)


def _parse(shown: str, content: bytes | bytearray) -> tuple[Any, int | None]:
    """Return the elements before the pixels, and where those begin; None if they are not there."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    stream = BytesIO(content)
    with dicom_gate(shown):
        dataset = dcmread(stream, force=True, stop_before_pixels=True)
        at = stream.tell()
        is_little = dataset.original_encoding[1] is not False
        order = "little" if is_little else "big"
        group, element = (int.from_bytes(content[at + 2 * part : at + 2 * part + 2], order) for part in (0, 1))  # type: ignore[arg-type]
        if not dataset.file_meta:
            # Without a preamble, the encoding of the first element tells the transfer syntax.
            implicit = dataset.original_encoding[0]
            explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset, at if (group << 16) + element in _PIXEL_TAGS else None
