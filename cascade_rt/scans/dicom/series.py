"""Read the only CT series of a folder in one go, as training data are prepared. A tilted gantry is refused."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputError
from cascade_rt.scans.checks import check_content
from cascade_rt.scans.dicom.conversion import SliceConversion
from cascade_rt.scans.dicom.headers import import_pydicom
from cascade_rt.scans.dicom.listing import Listing, files_in_folder, list_files
from cascade_rt.scans.dicom.pixels import check_pixels, read_stored
from cascade_rt.scans.dicom.selection import check_owner, has_same_pixels
from cascade_rt.scans.dicom.slices import Slice, parse_slice
from cascade_rt.scans.dicom.stack import affine_of, stack
from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.nifti.gate import input_gate
from cascade_rt.scans.volume import Volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Series:
    """One CT series whose geometry has been checked and whose pixels have not been read yet."""

    folder: Path
    slices: tuple[Slice, ...]
    """Sorted along their normal, one slice per position."""

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4x4, from the index (column, row, slice) to world mm (RAS+)."""
        return affine_of(self.slices)

    @property
    def grid(self) -> CanonicalGrid:
        """The grid of the voxels in the canonical frame."""
        rows, columns = self.slices[0].shape
        return CanonicalGrid.from_source((columns, rows, len(self.slices)), self.affine)


def find_series(folder: str | os.PathLike[str]) -> Series:
    """Find the only CT series in a folder and its subfolders, from the headers.

    Localizers, files of other modalities and files that are not DICOM are skipped, but a file that may be a damaged
    slice is an error. Pixels are read only to compare slices at the same position; of identical ones, one is kept.

    Raises:
        InputError: There is no CT series or more than one. Slices are missing, tilted, unevenly spaced, of different
            sizes or orientations, or two different slices share a position. A header is damaged or incomplete. A file
            beside the slices may be one of them and is not readable.
        BackendUnavailableError: pydicom, or a decoder for the pixels, is not installed.
    """
    root = Path(folder)
    import_pydicom()
    listing = list_files(files_in_folder(root))
    for uid in listing.series:
        listing.check_strangers(uid)
    headers = listing.series[_only_series(root, listing)]
    check_owner(str(root), headers)
    for header in headers:
        check_pixels(header)
    slices = [parse_slice(header) for header in headers]
    return Series(root, stack(str(root), slices, has_same_pixels, allow_tilt=False))


def read_series(series: Series, name: str | None = None, *, assume_hu: bool = False) -> Volume:
    """Read the pixels of a series as Hounsfield units, applying each slice's own slope and intercept.

    Args:
        series: The result of `find_series`.
        name: The name of the scan in messages and reports. None uses the name of its folder.
        assume_hu: See `ScanOptions`.

    Returns:
        The volume, with the same warnings about its values and geometry as for a NIfTI file.

    Raises:
        InputError: A file is damaged, or the values are not those of a CT scan.
    """
    _log.info("reading %d slices of %s", len(series.slices), series.folder)
    rows, columns = series.slices[0].shape
    voxels = np.empty((len(series.slices), rows, columns), dtype=np.int16)
    conversion = SliceConversion()
    for entry, wanted in zip(series.slices, voxels, strict=True):
        with input_gate(entry.shown):
            conversion.convert(entry, read_stored(entry), wanted.T)
    volume = Volume.from_array(voxels.T, series.affine, name=series.folder.name if name is None else name)
    with input_gate(os.fspath(series.folder)):
        doubts = [*conversion.check()]
        doubts += check_content(
            volume.voxels,
            conversion.seen,
            assume_hu=assume_hu,
            filled=conversion.filled,
            padded=conversion.padded,
        )
    return replace(volume, warnings=(*doubts, *volume.warnings))


def _only_series(root: Path, listing: Listing) -> str:
    if not listing.series:
        found = f"only {', '.join(sorted(listing.others))}" if listing.others else "no DICOM files"
        raise InputError(
            f"{root}: contains no CT series ({found}); choose the folder of one CT series", code="E_NOT_CT"
        )
    if len(listing.series) > 1:
        # The folders are not named in the message, because they are often named after the patient.
        sizes = " and ".join(str(len(found)) for found in listing.series.values())
        raise InputError(
            f"{root}: contains {len(listing.series)} CT series (of {sizes} slices); keep only one", code="E_SERIES"
        )
    return next(iter(listing.series))
