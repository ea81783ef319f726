"""Open scans of any format."""

import logging
import os

from cascade_rt.common.arguments import as_path, check_argument
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.source import ScanReader
from cascade_rt.scans.volume import FileReader, Volume

_log = logging.getLogger(__name__)


def open_scan(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> ScanReader:
    """Open a CT scan for reading slice by slice: a NIfTI, NRRD or MetaImage file, by its suffix.

    Raises:
        InputError: The file is missing, or its header does not describe a single 3D image of numbers.
        BackendUnavailableError: The package that reads this format is not installed.
        UsageError: An argument has the wrong type.
    """
    _log.info("reading %s", as_path("path", path))
    check_argument("options", options, ScanOptions, "ScanOptions, such as ScanOptions(assume_hu=True)")
    return FileReader(path, options)


def read_volume(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> Volume:
    """Read a CT scan from a NIfTI, NRRD or MetaImage file. The suffix decides; without one it is read as NIfTI.

    A compressed file is read to its end so that its checksum is verified.

    Args:
        path: The file.
        options: User-supplied facts that the file does not state, such as which of several volumes to read.

    Raises:
        InputError: The file is missing, damaged, of another format, or not a single 3D image in Hounsfield units.
            The `code` of the error says which.
        BackendUnavailableError: The package that reads this format is not installed.
    """
    with open_scan(path, options) as reader:
        return reader.finish()
