"""Find the files of a scan in a folder, a zip archive or a single file, and group the CT images by series."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade_rt.common.folders import raise_unreadable, walk_folder
from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.archive import ZipArchive
from cascade_rt.scans.dicom.headers import Header, dicom_gate, import_pydicom, read_header
from cascade_rt.scans.dicom.signatures import first_bytes, starts_dicom, starts_zip
from cascade_rt.scans.dicom.sources import FileOnDisk, SourceFile

_MODALITIES = {
    name: name for name in ("MR", "PT", "NM", "US", "CR", "DX", "XA", "SEG", "SR", "PR", "KO", "OT", "SC", "REG", "DOC")
} | {"RTSTRUCT": "RTSTRUCT", "RTPLAN": "RTPLAN", "RTDOSE": "RTDOSE", "RTIMAGE": "RTIMAGE"}
_DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class UID of a DICOMDIR, which lists the files on a medium and is not an image."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""SOP class UID of screen saves, and the beginning of those of their multi-frame forms."""
_NO_SLICES = {"LOCALIZER", "SCOUT", "SCREEN SAVE", "SCREENSHOT", "DOSE_INFO"}
"""Values of ImageType of images that are not slices, although their modality is CT."""


@dataclass(eq=False, slots=True)
class Listing:
    """The CT images found, and what else there was."""

    series: dict[str, list[Header]] = field(default_factory=dict)
    """Headers by SeriesInstanceUID, which may be empty."""
    others: set[str] = field(default_factory=set)
    """Kinds of files that were passed over."""
    strangers: dict[str, str] = field(default_factory=dict)
    """For each series with files of other modalities, how messages name one of them."""

    def add(self, header: Header) -> None:
        """Add a file. Raises InputError if its modality is missing."""
        with dicom_gate(header.file.shown):
            kind = _kind(header)
            uid = str(header.dataset.get("SeriesInstanceUID") or "")
        if kind == "CT":
            self.series.setdefault(uid, []).append(header)
            return
        self.others.add(kind)
        if kind not in {"localizer", "screen save", "directory"}:
            self.strangers[uid] = header.file.shown

    def check_strangers(self, uid: str) -> None:
        """Refuse a series to which files of other modalities belong."""
        if uid in self.strangers:
            sentence = "belongs to the CT series but has another modality; copy it again or remove it"
            raise InputError(f"{self.strangers[uid]}: {sentence}", code="E_NOT_CT")


@contextmanager
def open_listing(path: Path) -> Iterator[Listing]:
    """Read the headers of all DICOM files of a folder with its subfolders, of a zip archive, or of a single file.

    Pixels can be read until the `with` block ends.

    Raises:
        InputError: The path cannot be read, a header is damaged, or a file beside the slices may be one of them and is
            not DICOM.
        BackendUnavailableError: pydicom is not installed.
    """
    import_pydicom()
    with ExitStack() as stack:
        files: Iterator[SourceFile] | Sequence[SourceFile]
        if path.is_dir():
            files = files_in_folder(path)
        elif starts_zip(first_bytes(path)):
            archive = ZipArchive(path)
            stack.callback(archive.close)
            files = [member for member in archive.members if starts_dicom(member.head())]
        else:
            files = [FileOnDisk(path)]
        yield list_files(files)


def list_files(files: Iterator[SourceFile] | Sequence[SourceFile]) -> Listing:
    """Read the headers of DICOM files, and group the CT images by series. Raises InputError if one is damaged."""
    listing = Listing()
    for file in files:
        listing.add(read_header(file))
    return listing


def files_in_folder(root: Path) -> Iterator[FileOnDisk]:
    """Yield the DICOM files of a folder and its subfolders, except hidden ones.

    Other files are passed over, unless they may be slices.

    Raises:
        InputError: A folder or a file cannot be read, or a file beside the slices may be one of them and is not DICOM.
    """
    if not root.is_dir():
        raise InputError(f"{root}: the folder does not exist; check the path", code="E_NOT_FOUND")
    for content in walk_folder(root, raise_unreadable):
        # Such as the .snapshot of a file server, which holds all files once more.
        content.folders[:] = [name for name in content.folders if not name.startswith(".")]
        yield from dicom_files(content.path, content.files, root)


def dicom_files(folder: Path, names: Sequence[str], root: Path | None = None) -> list[FileOnDisk]:
    """Return the DICOM files among some files of one folder below a root. Raises like `files_in_folder`."""
    files = [FileOnDisk(folder / name, root) for name in names if not name.startswith(".")]
    slices = [file for file in files if starts_dicom(file.head())]
    endings = {".dcm", *(_ending(file.path) for file in slices if file.path.name.upper() != "DICOMDIR")}
    for file in files:
        head = file.head()
        if not starts_dicom(head) and _ending(file.path) in endings and not _is_text(file.path, head):
            sentence = "is not a DICOM file (truncated copy?); copy it again or remove it"
            raise InputError(f"{file.shown}: {sentence}", code="E_NOT_DICOM")
    return slices


def _ending(path: Path) -> str:
    """Return the lower-case suffix of a name, or "" if it has no letters, because slice names may end in numbers."""
    ending = path.suffix.lower()
    return ending if any(map(str.isalpha, ending)) else ""


def _is_text(path: Path, head: bytes) -> bool:
    """Return whether a file that is named like a slice is only a text file, such as a license."""
    is_named_dicom = _ending(path) == ".dcm"
    return bool(head) and not is_named_dicom and not any(byte < 32 and byte not in b"\t\n\f\r" for byte in head[:132])


def _kind(header: Header) -> str:
    """Return "CT" for a slice, otherwise what the file is, in the words of messages."""
    dataset = header.dataset
    modality = _modality(header)
    if modality == "directory":
        return modality
    if modality != "CT":
        return _MODALITIES.get(modality, "another modality")
    values = {str(value).upper() for value in _values(dataset.get("ImageType"))}
    if "LOCALIZER" in values or "SCOUT" in values:
        return "localizer"
    if values & _NO_SLICES or str(dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE):
        return "screen save"
    # Reformatted slices are secondary as well, but they have a rescale.
    if "SECONDARY" in values and dataset.get("RescaleSlope") is None and "NumberOfFrames" not in dataset:
        return "screen save"
    return "CT"


def _values(value: Any) -> Sequence[Any]:
    return (value,) if isinstance(value, str) else value or ()


def _modality(header: Header) -> str:
    """Return the modality of a file. Raises InputError if it is missing, as in truncated copies."""
    dataset = header.dataset
    if dataset.get("Modality"):
        return str(dataset.Modality)
    name = os.path.basename(header.file.short)
    if name.upper() == "DICOMDIR" or dataset.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        return "directory"
    raise InputError(
        f"{header.file.shown}: has no modality (truncated copy?); copy it again or remove it", code="E_NOT_DICOM"
    )
