"""Open scans of any format."""

import logging
import os

from cascade_rt.common.arguments import as_path, check_argument
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.source import ScanReader
from cascade_rt.scans.volume import NiftiReader, Volume

_log = logging.getLogger(__name__)


def open_scan(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> ScanReader:
    """Open a CT scan for reading slice by slice: a NIfTI-1 or NIfTI-2 file. Gzip is detected from the content.

    Raises:
        InputError: The file is missing or not NIfTI, or its header does not describe a single 3D image of numbers.
        UsageError: An argument has the wrong type.
    """
    _log.info("reading %s", as_path("path", path))
    check_argument("options", options, ScanOptions, "ScanOptions, such as ScanOptions(assume_hu=True)")
    return NiftiReader(path, options)


def read_volume(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> Volume:
    """Read a CT scan from a NIfTI-1 or NIfTI-2 file. Gzip is detected from the content, not from the name.

    A compressed file is read to its end so that its checksum is verified.

    Args:
        path: The file.
        options: User-supplied facts that the file does not state, such as which of several volumes to read.

    Raises:
        InputError: The file is missing, damaged, not NIfTI, or not a single 3D image in Hounsfield units. The `code` of
            the error says which.
    """
    with open_scan(path, options) as reader:
        return reader.finish()
