"""Read a CT series from DICOM files into the canonical frame, or refuse it with a one-sentence error.

This module handles what a reader that merely stacks files would silently get wrong: missing slices, duplicates, slices
from another series, a tilted gantry, and a different rescale in each slice. Needs pydicom.
"""

import logging
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.folders import raise_unreadable, walk_folder
from cascade_rt.common.packages import pip_install
from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file
from cascade_rt.errors import BackendUnavailableError, InputError, InputWarning
from cascade_rt.scans.checks import check_content
from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.nifti.conversion import HuConversion
from cascade_rt.scans.nifti.gate import input_gate
from cascade_rt.scans.volume import Volume

_log = logging.getLogger(__name__)

_Vector = tuple[float, float, float]

_SPACING_TOLERANCE = 0.01
"""How far a slice may lie from its place between the first and the last, as a fraction of the slice spacing."""
_ROUNDING_MM = 0.1
"""Always tolerated deviation along each axis, from rounding the positions of slice and end slices to one decimal."""
_MOST_UNEVEN = 0.25
"""Upper bound on that tolerance, as a fraction of the slice spacing, so that a missing slice is never hidden."""
_FLOAT_MM = 1e-6
_DRIFT_TOLERANCE = 0.1
"""How far a slice may lie off the normal through the first slice, in pixels."""
_DIRECTION_TOLERANCE = 1e-3
_TAGS = (
    *("Modality", "ImageType", "SeriesInstanceUID", "InstanceNumber", "SamplesPerPixel", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("RescaleSlope", "RescaleIntercept"),
)
_MODALITIES = {
    name: name for name in ("MR", "PT", "NM", "US", "CR", "DX", "XA", "SEG", "SR", "PR", "KO", "OT", "SC", "REG", "DOC")
} | {"RTSTRUCT": "RTSTRUCT", "RTPLAN": "RTPLAN", "RTDOSE": "RTDOSE", "RTIMAGE": "RTIMAGE"}
_FIRST_TYPES = (b"UL", b"UI", b"CS", b"DA", b"TM", b"SH", b"LO", b"OB")
"""Value representations (VR) of the first elements of groups 2 and 8."""
_HEAD_BYTES = 132
_DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class UID of a DICOMDIR, which lists the files on a medium and is not an image."""
_LONGEST_FIRST = 64
"""Maximum length in bytes of such a first element, which is a name or a date."""
_CODECS = {
    "1.2.840.10008.1.2.4.50": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.57": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.70": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
}
"""Packages that decode transfer syntaxes not covered by the `dicom` extra, which has JPEG 2000, deflate and RLE."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """The header fields of one file that place and scale its pixels."""

    path: Path
    number: int | None
    position: _Vector
    """The center of the first pixel in world mm (LPS+)."""
    row_direction: _Vector
    """The direction along a row, toward higher columns; a unit vector (LPS+)."""
    column_direction: _Vector
    pixel_mm: tuple[float, float]
    """The distance between rows, and between columns."""
    shape: tuple[int, int]
    """Rows and columns."""
    rescale: tuple[float, float]
    """Slope and intercept."""

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        return np.cross(self.row_direction, self.column_direction)

    @property
    def height_mm(self) -> float:
        """The position of the slice along its normal."""
        return float(np.dot(self.position, self.normal))

    def __str__(self) -> str:
        number = "" if self.number is None else f"image {self.number}, "
        return f"{self.path.name} ({number}at {self.height_mm:.2f} mm)"


@dataclass(frozen=True, slots=True)
class Series:
    """One CT series whose geometry has been checked and whose pixels have not been read yet."""

    folder: Path
    slices: tuple[_Slice, ...]
    """Sorted along their normal, one slice per position."""

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4x4, from the index (column, row, slice) to world mm (RAS+)."""
        first, last = self.slices[0], self.slices[-1]
        matrix = np.eye(4)
        matrix[:3, 0] = np.multiply(first.row_direction, first.pixel_mm[1])
        matrix[:3, 1] = np.multiply(first.column_direction, first.pixel_mm[0])
        matrix[:3, 2] = np.subtract(last.position, first.position) / (len(self.slices) - 1)
        matrix[:3, 3] = first.position
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix

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
    slices = _only_ct_series(root)
    for entry in slices[1:]:
        _check_alike(slices[0], entry)
    ordered = _without_duplicates(sorted(slices, key=lambda entry: entry.height_mm))
    if len(ordered) < 2:
        raise InputError(f"{root}: the CT series has 1 slice, but a scan needs at least 2; copy the whole series")
    _check_drift(root, ordered)
    _check_spacing(root, ordered)
    return Series(root, tuple(ordered))


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
    conversion = HuConversion(np.dtype(np.float64), (1.0, 0.0))
    for index, entry in enumerate(series.slices):
        conversion.convert(_read_hu(entry).T[..., None], voxels[index : index + 1].T)
    volume = Volume.from_array(voxels.T, series.affine, name=series.folder.name if name is None else name)
    with input_gate(os.fspath(series.folder)):
        doubts = [*_doubts_of_rescale(series), *conversion.check()]
        doubts += check_content(
            volume.voxels,
            (conversion.lowest, conversion.highest),
            assume_hu=assume_hu,
            filled=conversion.filled,
            padded=conversion.padded,
        )
    return replace(volume, warnings=(*doubts, *volume.warnings))


def _doubts_of_rescale(series: Series) -> tuple[InputWarning, ...]:
    lowest = min(entry.rescale[0] for entry in series.slices)
    if lowest > 0:
        return ()
    sentence = f"its slope of {lowest:g} inverts the stored values; is it right?"
    return (InputWarning("W_SLOPE", sentence),)


def is_dicom(path: Path) -> bool:
    """Return whether the first bytes of a file identify it as DICOM.

    Raises:
        InputError: The file cannot be read.
    """
    return _starts_dicom(_head(path))


def _head(path: Path) -> bytes:
    """Read the first bytes of a file, which identify its format."""
    try:
        with open_plain_file(path, follow_links=True) as file:
            return file.read(_HEAD_BYTES)
    except NotAPlainFileError as error:
        raise InputError(f"{path}: {error}; remove it from the scan folder", code="E_NOT_A_FILE") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from error


def _starts_dicom(head: bytes) -> bool:
    """Return whether the first 132 bytes of a file are those of DICOM.

    Older files lack the preamble and the DICM prefix. They begin with an element of group 2 or 8: with explicit VR it
    names a VR of two letters, with implicit VR a length, which is short in these groups.
    """
    if head[128:] == b"DICM":
        return True
    group, kind, length = head[:2], head[4:6], int.from_bytes(head[4:8], "little")
    begins = len(head) == _HEAD_BYTES and group in (b"\x02\x00", b"\x08\x00")
    return begins and (kind in _FIRST_TYPES or length <= _LONGEST_FIRST)


def _only_ct_series(root: Path) -> list[_Slice]:
    """Read the headers of all files and return the slices of the only CT series."""
    _import_pydicom()
    series: dict[str, list[_Slice]] = defaultdict(list)
    others: set[str] = set()
    of_others: dict[str, Path] = {}
    for path in _dicom_files(root):
        with _as_sentences(path):
            header = _read_dataset(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            modality = _modality(path, header)
            of_series = str(header.get("SeriesInstanceUID") or "")
            if modality != "CT" or "LOCALIZER" in (header.get("ImageType") or ()):
                others.add("localizer" if modality == "CT" else _MODALITIES.get(modality, "another modality"))
                if modality not in ("CT", "directory"):
                    of_others[of_series] = path
                continue
            _check_codec(path, header)
            series[of_series].append(_parse_slice(path, header))
    for strange in series.keys() & of_others.keys():
        raise InputError(
            f"{of_others[strange]}: belongs to the CT series but has another modality; copy it again or remove it"
        )
    if not series:
        found = f"only {', '.join(sorted(others))}" if others else "no DICOM files"
        raise InputError(f"{root}: contains no CT series ({found}); choose the folder of one CT series")
    if len(series) > 1:
        # The folders are not named in the message, because they are often named after the patient.
        sizes = " and ".join(str(len(found)) for found in series.values())
        raise InputError(f"{root}: contains {len(series)} CT series (of {sizes} slices); keep only one")
    return next(iter(series.values()))


def _dicom_files(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        raise InputError(f"{root}: the folder does not exist; check the path")
    for content in walk_folder(root, raise_unreadable):
        heads = {content.path / name: b"" for name in content.files if not name.startswith(".")}
        for path in heads:
            heads[path] = _head(path)
        slices = [path for path, head in heads.items() if _starts_dicom(head)]
        endings = {".dcm", *(_ending(path) for path in slices if path.name.upper() != "DICOMDIR")}
        for path, head in heads.items():
            if not _starts_dicom(head) and _ending(path) in endings and not _is_text(path, head):
                raise InputError(f"{path}: is not a DICOM file (truncated copy?); copy it again or remove it")
        yield from slices


def _ending(path: Path) -> str:
    """Return the lower-case suffix of a name, or "" if it has no letters, because slice names may end in numbers."""
    ending = path.suffix.lower()
    return ending if any(map(str.isalpha, ending)) else ""


def _is_text(path: Path, head: bytes) -> bool:
    """Return whether a file that is named like a slice is only a text file, such as a license."""
    is_named_dicom = _ending(path) == ".dcm"
    return bool(head) and not is_named_dicom and not any(byte < 32 and byte not in b"\t\n\f\r" for byte in head)


def _modality(path: Path, header: Any) -> str:
    """Return the modality of a file. Raises InputError if it is missing, as in truncated copies."""
    if header.get("Modality"):
        return str(header.Modality)
    if path.name.upper() == "DICOMDIR" or header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        return "directory"
    raise InputError(f"{path}: has no modality (truncated copy?); copy it again or remove it")


def _parse_slice(path: Path, header: Any) -> _Slice:
    """Parse the fields that place and scale the pixels. Raises InputError if any is missing or invalid."""
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        if header.get(tag) in (None, ""):
            raise InputError(f"{path}: has no {tag}, needed to place the slice; export the series again")
    if header.get("RescaleSlope") is None or header.get("RescaleIntercept") is None:
        raise InputError(f"{path}: has no rescale slope or intercept; export the original CT series")
    if int(header.get("NumberOfFrames") or 1) > 1 or int(header.get("SamplesPerPixel") or 1) > 1:
        raise InputError(f"{path}: has several frames or color channels; convert it to .nii.gz with dcm2niix")
    x, y, z = (float(value) for value in header.ImagePositionPatient)
    orientation = np.array([float(value) for value in header.ImageOrientationPatient])
    row_mm, column_mm = (float(value) for value in header.PixelSpacing)
    row_direction, column_direction = orientation[:3], orientation[3:]
    products = (row_direction @ row_direction, column_direction @ column_direction, row_direction @ column_direction)
    numbers = (x, y, z, row_mm, column_mm)
    if not np.allclose(products, (1, 1, 0), atol=_DIRECTION_TOLERANCE) or not np.isfinite(numbers).all():
        raise InputError(f"{path}: its directions are not perpendicular unit vectors; export the series again")
    if min(row_mm, column_mm) <= 0 or min(header.Rows, header.Columns) < 1:
        raise InputError(f"{path}: its image or pixel size is not positive; export the series again")
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise InputError(f"{path}: its rescale slope or intercept is invalid; export the original CT series")
    number = header.get("InstanceNumber")
    return _Slice(
        path=path,
        number=None if number in (None, "") else int(number),
        position=(x, y, z),
        row_direction=_vector(row_direction),
        column_direction=_vector(column_direction),
        pixel_mm=(row_mm, column_mm),
        shape=(int(header.Rows), int(header.Columns)),
        rescale=(slope, intercept),
    )


def _vector(values: npt.NDArray[np.float64]) -> _Vector:
    x, y, z = values.tolist()
    return x, y, z


def _check_alike(first: _Slice, other: _Slice) -> None:
    directions = (*first.row_direction, *first.column_direction)
    others = (*other.row_direction, *other.column_direction)
    differing = {
        "size": first.shape != other.shape,
        "pixel spacing": not np.allclose(first.pixel_mm, other.pixel_mm, rtol=1e-3),
        "orientation": not np.allclose(directions, others, atol=_DIRECTION_TOLERANCE),
    }
    for what, differs in differing.items():
        if differs:
            raise InputError(
                f"{other.path}: differs in {what} from {first.path.name} of the same series; "
                "keep the slices of one axial series"
            )


def _without_duplicates(slices: Sequence[_Slice]) -> list[_Slice]:
    """Keep one slice per position. Raises InputError if two slices at one position differ."""
    kept = [slices[0]]
    for entry in slices[1:]:
        if not np.allclose(entry.position, kept[-1].position, rtol=0, atol=1e-3):
            kept.append(entry)
        elif not np.array_equal(_read_hu(entry), _read_hu(kept[-1])):
            raise InputError(
                f"{entry.path}: has the same position as {kept[-1].path.name} but another image; "
                "keep one phase or reconstruction"
            )
    return kept


def _check_drift(root: Path, slices: Sequence[_Slice]) -> None:
    """Refuse slices that are not stacked along their normal, because the volume would be sheared."""
    first, last = slices[0], slices[-1]
    heights = np.array([entry.height_mm for entry in slices]) - first.height_mm
    beside = np.subtract([entry.position for entry in slices], first.position) - heights[:, None] * first.normal
    drift = np.linalg.norm(beside, axis=1)
    if drift.max() > max(_DRIFT_TOLERANCE * min(first.pixel_mm), math.hypot(_ROUNDING_MM, _ROUNDING_MM)):
        tilt = math.degrees(math.atan2(drift[-1], last.height_mm - first.height_mm))
        raise InputError(
            f"{root}: slices are up to {drift.max():.1f} mm out of line (gantry tilt of {tilt:.1f} degrees?); "
            "convert the series with dcm2niix, which corrects it"
        )


def _check_spacing(root: Path, slices: Sequence[_Slice]) -> None:
    """Refuse a series with missing slices, or with slices unevenly spaced along their normal.

    Each slice is compared with its place on the line from the first to the last slice, not with its predecessor. When
    positions are rounded, the steps alternate although no slice is out of place.
    """
    heights = np.array([entry.height_mm for entry in slices])
    steps = np.diff(heights)
    places = np.concatenate([[0], np.cumsum(np.rint(steps / np.median(steps)).astype(int))])
    spacing = float(heights[-1] - heights[0]) / max(1, int(places[-1]))
    off = np.abs(heights - heights[0] - places * spacing)
    rounding = min(_ROUNDING_MM * float(np.abs(slices[0].normal).sum()), _MOST_UNEVEN * spacing)
    # 0.1 has no exact float representation.
    if (np.diff(places) < 1).any() or off.max() > max(_SPACING_TOLERANCE * spacing, rounding) + _FLOAT_MM:
        raise InputError(
            f"{root}: slices are unevenly spaced, {steps.min():.3g} to {steps.max():.3g} mm apart; "
            "resample the scan or use another reconstruction"
        )
    missing = np.diff(places) - 1
    wrong = np.flatnonzero(missing)
    if not wrong.size:
        return
    pairs = list(pairwise(slices))
    gaps = [
        f"{count} between {pairs[index][0]} and {pairs[index][1]}"
        for index, count in zip(wrong.tolist(), missing[wrong].tolist(), strict=True)
    ]
    shown = "; ".join(gaps[:3]) + (f"; and {len(gaps) - 3} more gaps" if len(gaps) > 3 else "")
    raise InputError(f"{root}: slices are missing: {shown}; copy the whole series")


def _read_hu(entry: _Slice) -> npt.NDArray[np.float64]:
    """Read one slice `[row, col]` in Hounsfield units, rounded but not clipped."""
    with _as_sentences(entry.path):
        stored = _read_dataset(entry.path).pixel_array
    if stored.shape != entry.shape:
        raise InputError(f"{entry.path}: has pixels of shape {stored.shape}, but its header says {entry.shape}")
    slope, intercept = entry.rescale
    hu: npt.NDArray[np.float64] = np.rint(stored * slope + intercept)
    return hu


def _read_dataset(path: Path, **options: Any) -> Any:
    """Read a file. Without a preamble, the transfer syntax is inferred from the encoding of the first element."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset = _import_pydicom().dcmread(path, force=True, **options)
    if not dataset.file_meta:
        implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def _check_codec(path: Path, header: Any) -> None:
    """Refuse pixels for which no decoder is installed."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise InputError(f"{path}: has no transfer syntax; export the series again")
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise InputError(f"{path}: {syntax.name} cannot be decoded; convert the series with dcm2niix") from None
    if not available:
        package = _CODECS.get(str(syntax))
        remedy = pip_install("dicom") if package is None else f"pip install {package}"
        raise BackendUnavailableError(f"{path}: {syntax.name} needs a decoder; run: {remedy}")


@contextmanager
def _as_sentences(path: Path) -> Iterator[None]:
    """Turn the errors pydicom raises on a bad file into a one-sentence InputError, and suppress its warnings."""
    import pydicom.errors

    kinds = (pydicom.errors.InvalidDicomError, EOFError, ValueError, TypeError, AttributeError, KeyError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*kinds, NotImplementedError, RuntimeError, OSError) as error:
        # Messages from pydicom quote the file and may name the patient. Those of the operating system do not.
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise InputError(f"{path}: is damaged or cannot be decoded{reason}; copy it again") from error


def _import_pydicom() -> ModuleType:
    try:
        import pydicom
    except ModuleNotFoundError as error:
        if error.name != "pydicom":
            raise
        raise BackendUnavailableError(
            f"DICOM files need a package that is not installed (pydicom); run: {pip_install('dicom')}"
        ) from None
    return pydicom
