"""Open scans of any format."""

import logging
import os
from pathlib import Path

from cascade_rt.common.arguments import as_path, check_argument
from cascade_rt.common.folders import stamp_folder
from cascade_rt.common.hashing import FileRecord, joint_stamp, stamp
from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.reader import DicomReader, read_series_grid, record_series
from cascade_rt.scans.dicom.signatures import first_bytes, starts_dicom, starts_zip
from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.names import split_suffix
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.source import ScanReader
from cascade_rt.scans.text_header import detached_file, record_with_detached
from cascade_rt.scans.volume import FileReader, Volume
from cascade_rt.scans.volume import read_grid as read_file_grid

_log = logging.getLogger(__name__)


def open_scan(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> ScanReader:
    """Open a CT scan for reading slice by slice.

    Args:
        path: A NIfTI, NRRD or MetaImage file, by its suffix; the folder of a DICOM series or study, a zip archive of
            one, or a single DICOM file, by their content. Any other file is read as NIfTI.
        options: User-supplied facts that the scan does not state, such as which of several series to read.

    Raises:
        InputError: The scan is missing or its format is unknown, or its header does not describe a single 3D image of
            numbers.
        BackendUnavailableError: A package that reads this format, or decodes its pixels, is not installed.
        UsageError: An argument has the wrong type.
    """
    _log.info("reading %s", as_path("path", path))
    check_argument("options", options, ScanOptions, "ScanOptions, such as ScanOptions(assume_hu=True)")
    return DicomReader(path, options) if stores_dicom(path, options) else FileReader(path, options)


def read_volume(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> Volume:
    """Read a CT scan of any format that `open_scan` takes.

    Files are read to their end, so that checksums are verified.

    Args:
        path: See `open_scan`.
        options: User-supplied facts that the scan does not state, such as which of several volumes to read.

    Raises:
        InputError: The scan is missing, damaged, of an unknown format, or not a single 3D image in Hounsfield units.
            The `code` of the error says which.
        BackendUnavailableError: See `open_scan`.
    """
    with open_scan(path, options) as reader:
        return reader.finish()


def read_grid(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> CanonicalGrid:
    """Read the grid of a scan from its headers alone. Raises like `open_scan`."""
    return read_series_grid(path, options) if stores_dicom(path, options) else read_file_grid(path, options)


def scan_stamp(path: Path) -> list[int] | None:
    """Return what changes whenever a scan is written or replaced, or None if it is missing or cannot be looked at.

    Returns:
        For a file see `stamp`. For a folder four numbers as well, of all files in it and in its subfolders, and for a
        header with its voxels in another file of both: the sum of their sizes, the last modification and the last
        change of an inode in ns, and a hash of the stamps of all.
    """
    if os.path.isdir(path):
        return stamp_folder(path)
    detached = detached_file(path)
    return stamp(path) if detached is None else joint_stamp([stamp(path), stamp(detached)])


def record_scan(path: Path, options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> FileRecord:
    """Read a scan without decoding it, and return what `Volume.file` is for an unchanged one.

    Raises:
        InputError, BackendUnavailableError: The DICOM series cannot be found.
        OSError, NotAPlainFileError: The file cannot be read.
    """
    return record_series(path, options.series) if stores_dicom(path, options) else record_with_detached(path)


def stores_dicom(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> bool:
    """Return whether a path is read as DICOM. Whoever opens a path that cannot be read reports why.

    Raises:
        InputError: A series is chosen, but the path is not DICOM.
    """
    found = _is_dicom(Path(path))
    if options.series is not None and not found:
        raise InputError(
            f"{os.fspath(path)}: is not DICOM, which alone has series; leave out `series`", code="E_SERIES"
        )
    return found


def _is_dicom(path: Path) -> bool:
    if split_suffix(path.name)[1]:
        return False
    if os.path.isdir(path):
        return True
    try:
        head = first_bytes(path)
    except InputError:
        return False
    return starts_dicom(head) or starts_zip(head)
