"""CT scans and masks as NIfTI files, in and out of the canonical frame.

The canonical frame is `[z, row, col]`: z toward superior, row toward posterior, col toward the patient's left, like the
pixels of axial DICOM slices. A file may hold its axes in any of 48 orientations; masks go back on the file's own grid.
"""

# mypy: untyped-calls-exclude=nibabel

import gzip
import io
import logging
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from cascade_rt.atomic import atomic_write
from cascade_rt.errors import InputError, OutputError

Affine = npt.NDArray[np.float64]
_VoxelType = type[np.int16] | type[np.uint8]

_LPS = axcodes2ornt(("L", "P", "S"))
_HEADER_KINDS: dict[bytes, tuple[type[Nifti1Header], str]] = {
    (348).to_bytes(4, "little"): (Nifti1Header, "<"),
    (348).to_bytes(4, "big"): (Nifti1Header, ">"),
    (540).to_bytes(4, "little"): (Nifti2Header, "<"),
    (540).to_bytes(4, "big"): (Nifti2Header, ">"),
}
_GEOMETRY_FIELDS = (
    *("pixdim", "xyzt_units", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
_CHUNK_BYTES = 4 << 20
_LARGEST_DEFLATE_RATIO = 1032
# On masks a higher level costs more time than the kilobytes are worth.
_MASK_COMPRESSION = 1
# How far the corners of a label's grid may lie from those of its scan, as a part of the smallest spacing.
_GRID_TOLERANCE = 0.1

_DAMAGED = "its compressed data are damaged; copy it again"
_BAD_HEADER = "its NIfTI header is damaged or of an unknown kind ({error}); export it again"
_REASONS: dict[type[Exception], str] = {
    EOFError: "the file ends too early (truncated download or copy?); copy it again",
    zlib.error: _DAMAGED,
    gzip.BadGzipFile: _DAMAGED,
    FileNotFoundError: "there is no such file; check the path",
    IsADirectoryError: "this is a folder; name one .nii or .nii.gz file",
    OSError: "the file cannot be read ({error}); check its permissions and its disk",
    MemoryError: "the image does not fit into memory; crop it or use a larger machine",
    HeaderDataError: _BAD_HEADER,
    ValueError: _BAD_HEADER,
    OverflowError: _BAD_HEADER,
}

# nibabel prints what it finds in a header; the sentence of the `InputError` is to be the only one.
_LOGGER = logging.getLogger(__name__)
_LOGGER.addHandler(logging.NullHandler())


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """The grid of the input, as it was: all that is needed to write a mask back on it."""

    shape: tuple[int, int, int]
    """Voxels along the input's own axes `[i, j, k]`."""
    affine: Affine
    """4x4, from the index (i, j, k) to world mm (RAS+)."""
    orientation: npt.NDArray[np.float64]
    """3x2, nibabel's orientation of the input's axes: for each the world axis it runs along, and 1 or -1."""
    geometry: Mapping[str, npt.NDArray[Any]]
    """The NIfTI header fields that place the voxels in the world, verbatim: pixdim, units, sform, qform and codes."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT scan in the canonical frame."""

    voxels: npt.NDArray[np.int16]
    """`[z, row, col]`, Hounsfield units, C-contiguous."""
    affine: Affine
    """4x4, from the canonical index (z, row, col) to world mm (RAS+, the NIfTI convention)."""
    grid: SourceGrid
    """The input's own grid."""
    name: str
    """The file name without .nii or .nii.gz; "array" for arrays."""
    path: Path | None = None
    """The absolute path of the file it was read from; `write_mask` refuses to write there."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between neighbours along z, row and col."""
        z, row, col = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(row), float(col)

    @property
    def voxel_volume_ml(self) -> float:
        """The volume of one voxel in ml, also where the axes are sheared."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @classmethod
    def from_array(cls, array: npt.NDArray[Any], affine: npt.ArrayLike, *, name: str = "array") -> "Volume":
        """Take a scan from memory.

        Args:
            array: `[i, j, k]`, Hounsfield units in any integer or float type, axes in any orientation. The volume
                shares its memory where nothing has to be converted.
            affine: 4x4, from the index (i, j, k) to world mm (RAS+).
            name: What messages and reports call the scan.

        Raises:
            InputError: The array or the affine cannot be that of a CT scan.
        """
        shape = _check_voxels(array.shape, array.dtype, name)
        matrix = np.array(affine, dtype=np.float64)
        _check_affine(matrix, name)
        header = Nifti1Header()
        header.set_xyzt_units("mm")
        header.set_sform(matrix, code="aligned")
        header.set_qform(matrix, code="unknown")
        image = _Image(array.reshape(shape), (1.0, 0.0), matrix, header)
        return _canonical_volume(image, name, name, None)


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a CT scan from a NIfTI-1 or NIfTI-2 file; plain or gzip is told from the content, not from the name.

    A compressed file is read to its end, so that its checksum is verified.

    Raises:
        InputError: The file is missing, damaged, not NIfTI, or not one 3D image of numbers that fit into int16.
    """
    shown = os.fspath(path)
    name = os.path.basename(shown).removesuffix(_suffix(shown))
    return _canonical_volume(_read_nifti(shown), shown, name, Path(os.path.abspath(shown)))


def read_mask(path: str | os.PathLike[str], like: Volume | None = None) -> npt.NDArray[np.uint8]:
    """Read a label file into the canonical frame.

    Args:
        path: A NIfTI file with whole numbers from 0 to 255, axes in any orientation.
        like: The scan the labels belong to; None takes them as they are.

    Returns:
        `[z, row, col]`, C-contiguous.

    Raises:
        InputError: As in `read_volume`; or there are other numbers than 0 to 255; or the labels do not lie on the grid
            of `like`: another number of voxels, or corners that differ by more than a tenth of the smallest spacing.
    """
    shown = os.fspath(path)
    image = _read_nifti(shown)
    labels = _converted(image.stored, image.scaling, np.uint8, shown)
    mask = _to_canonical(labels, io_orientation(image.affine))
    if like is not None:
        _check_same_grid(mask.shape, _canonical_affine(image.affine, labels.shape), like, shown)
    return mask


def mask_on_source_grid(mask: npt.NDArray[np.uint8], volume: Volume) -> npt.NDArray[np.uint8]:
    """Return a mask `[z, row, col]` of the volume on the input's own grid `[i, j, k]`: a view.

    Raises:
        ValueError: The mask has another shape than the volume, or is not uint8.
    """
    if mask.shape != volume.voxels.shape or mask.dtype != np.uint8:
        raise ValueError(f"mask must be uint8 {volume.voxels.shape}, got {mask.dtype} {mask.shape}")
    return np.asarray(apply_orientation(mask.T, ornt_transform(_LPS, volume.grid.orientation)))


def write_mask(
    mask: npt.NDArray[np.uint8], volume: Volume, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a mask on the input's own grid: its shape, its affine, its qform and sform with their codes, its units.

    The same mask gives the same bytes, and nothing else of the input's header is kept: no description, no extensions.
    The file is NIfTI-1, or NIfTI-2 where a side is too long for that. It is there completely or not at all.

    Args:
        mask: `[z, row, col]`, in the canonical frame of the volume.
        volume: The scan the mask belongs to.
        path: Where to write; the name ends in .nii or .nii.gz and decides whether the file is compressed.
        overwrite: Whether a file that is already there may be replaced; the scan itself never is.

    Raises:
        OutputExistsError: The file is already there and `overwrite` is false.
        OutputError: The name has another ending, the path is that of the scan, or the file cannot be written.
        ValueError: The mask has another shape than the volume, or is not uint8.
    """
    shown = os.fspath(path)
    suffix = _suffix(shown)
    if not suffix:
        raise OutputError(f"{shown}: a mask is written as NIfTI; let the name end in .nii or .nii.gz")
    refuse_scan(shown, volume)
    content = np.ascontiguousarray(mask_on_source_grid(mask, volume).T).data
    prefix = _mask_prefix(volume.grid)

    def write(file: BinaryIO) -> None:
        if suffix.lower() == ".nii":
            file.writelines((prefix, content))
        else:
            # Without a file name and with time 0 the bytes depend on the mask alone.
            with gzip.GzipFile("", "wb", _MASK_COMPRESSION, file, mtime=0) as stream:
                stream.writelines((prefix, content))

    atomic_write(shown, write, overwrite=overwrite)


def refuse_scan(path: str | os.PathLike[str], volume: Volume) -> None:
    """Raise OutputError where a result would go over the scan it was made from."""
    if volume.path is not None and _is_same_file(os.fspath(path), volume.path):
        raise OutputError(
            f"{os.fspath(path)}: this is the scan itself, which is never overwritten; choose another name"
        )


def _suffix(path: str) -> str:
    """Return the .nii or .nii.gz a path ends in, in the case it is written in, or nothing."""
    length = next((len(suffix) for suffix in (".nii.gz", ".nii") if path.lower().endswith(suffix)), 0)
    return path[len(path) - length :]


def _is_same_file(path: str, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _mask_prefix(grid: SourceGrid) -> bytes:
    """Return what comes before the voxels of a mask: the header and four zeros, for no extensions."""
    header_class: type[Nifti1Header] = Nifti1Header if max(grid.shape) <= 32767 else Nifti2Header
    header = header_class(endianness="<")
    header.set_data_shape(grid.shape)
    header.set_data_dtype(np.uint8)
    header.set_data_offset(header.single_vox_offset)
    header.set_slope_inter(1.0, 0.0)
    with np.errstate(all="ignore"):
        for name, value in grid.geometry.items():
            header[name] = value
    return bytes(header.binaryblock) + bytes(4)


@dataclass(frozen=True, eq=False)
class _Image:
    """What a NIfTI file holds: voxels `[i, j, k]` as stored, and slope and intercept that scale them."""

    stored: npt.NDArray[Any]
    scaling: tuple[float, float]
    affine: Affine
    header: Nifti1Header


def _read_nifti(shown: str) -> _Image:
    """Read a file to its end. The only place that knows what nibabel, gzip and the system raise on a bad one."""
    try:
        with open(shown, "rb") as file, np.errstate(all="ignore"):
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise InputError(f"{shown}: the file is empty; copy it again")
            if file.peek(2)[:2] != b"\x1f\x8b":
                return _read_stream(file, size, shown)
            with gzip.GzipFile(fileobj=file) as stream:
                return _read_stream(stream, size * _LARGEST_DEFLATE_RATIO, shown)
    except tuple(_REASONS) as error:
        reason = next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
        raise InputError(f"{shown}: {reason.format(error=getattr(error, 'strerror', None) or error)}") from error


def _read_stream(stream: io.BufferedIOBase, most_bytes: int, shown: str) -> _Image:
    header = _read_header(stream, shown)
    dtype = header.get_data_dtype()
    shape = _check_voxels(header.get_data_shape(), dtype, shown)
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    _check_affine(affine, shown)
    slope, intercept = header.get_slope_inter()
    voxel_bytes = math.prod(shape) * dtype.itemsize
    # Before anything is allocated: a few damaged bytes in a header can promise terabytes.
    if header.get_data_offset() + voxel_bytes > most_bytes:
        raise EOFError
    stream.seek(header.get_data_offset())
    buffer = np.empty(voxel_bytes, dtype=np.uint8)
    _fill(buffer.data, stream)
    # gzip verifies its checksum where the stream ends, not where the last voxel does.
    while stream.read(_CHUNK_BYTES):
        pass
    stored = buffer.view(dtype).reshape(shape, order="F")
    return _Image(stored, (1.0 if slope is None else slope, intercept or 0.0), affine, header)


def _read_header(stream: io.BufferedIOBase, shown: str) -> Nifti1Header:
    start = stream.read(4)
    if start not in _HEADER_KINDS:
        raise InputError(f"{shown}: this is not a NIfTI file; convert the scan to .nii.gz")
    header_class, endianness = _HEADER_KINDS[start]
    block = start + stream.read(header_class.sizeof_hdr - len(start))
    if len(block) < header_class.sizeof_hdr:
        raise EOFError
    header = header_class(block, endianness, check=False)
    header.check_fix(logger=_LOGGER)
    if header["magic"].item() == header.pair_magic:
        raise InputError(f"{shown}: its voxels are in another file (.hdr with .img); convert the scan to .nii.gz")
    if header.get_data_offset() < header.single_vox_offset:
        raise HeaderDataError(f"voxels begin at byte {header.get_data_offset()}, inside the header")
    return header


def _fill(buffer: memoryview, stream: io.BufferedIOBase) -> None:
    while buffer:
        count = stream.readinto(buffer[:_CHUNK_BYTES])
        if count == 0:
            raise EOFError
        buffer = buffer[count:]


def _check_voxels(shape: tuple[int, ...], dtype: np.dtype[Any], shown: str) -> tuple[int, int, int]:
    """Return the first three sides; there must be three, and further ones only of length 1."""
    if min(shape, default=0) < 1:
        raise InputError(f"{shown}: the image has no voxels, its shape is {shape}; export it again")
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise InputError(f"{shown}: a scan has 3 axes, this image has the shape {shape}; save one 3D image")
    if dtype.kind not in "iuf":
        raise InputError(f"{shown}: voxels must be integers or real numbers, not {dtype}; export it as int16")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _check_affine(affine: Affine, shown: str) -> None:
    if affine.shape != (4, 4) or not (np.abs(affine) < 1e9).all():
        raise InputError(f"{shown}: the affine must be a 4x4 matrix of numbers that can be mm; export it again")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-9 or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * lengths.prod():
        raise InputError(f"{shown}: the affine is singular, two axes run alike or one has no length; export it again")


def _check_same_grid(shape: tuple[int, ...], affine: Affine, like: Volume, shown: str) -> None:
    if shape != like.voxels.shape:
        raise InputError(f"{shown}: {shape} voxels, the scan has {like.voxels.shape}; use the labels of this scan")
    corners = np.array([(*corner, 1.0) for corner in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1.0]
    distance = np.linalg.norm(corners @ (affine - like.affine).T, axis=1).max()
    if distance > _GRID_TOLERANCE * min(like.spacing_mm):
        raise InputError(f"{shown}: lies {distance:.3g} mm off the grid of the scan; use the labels of this scan")


def _converted(
    stored: npt.NDArray[Any], scaling: tuple[float, float], dtype: _VoxelType, shown: str
) -> npt.NDArray[Any]:
    """Scale `[i, j, k]` to HU (int16, rounded) or to labels (uint8, which must be whole numbers)."""
    slope, intercept = scaling
    if stored.dtype.kind in "iu" and slope == 1.0 and float(intercept).is_integer():
        return _shifted(stored, int(intercept), dtype, shown)
    result = np.empty(stored.shape, dtype=dtype, order="F")
    for index in range(stored.shape[2]):
        with np.errstate(over="ignore"):
            values = stored[..., index].astype(np.float64) * slope + intercept
        whole = np.rint(values)
        _check_range(float(whole.min()), float(whole.max()), dtype, shown)
        if dtype is np.uint8 and np.abs(values - whole).max() > 1e-3:
            raise InputError(f"{shown}: labels must be whole numbers; is it a probability map?")
        result[..., index] = whole
    return result


def _shifted(stored: npt.NDArray[Any], offset: int, dtype: _VoxelType, shown: str) -> npt.NDArray[Any]:
    if offset != 0 or not np.can_cast(stored.dtype, dtype):
        _check_range(int(stored.min()) + offset, int(stored.max()) + offset, dtype, shown)
    result = stored.astype(dtype, copy=False)
    # Both may wrap around, which cancels out: the sums were seen to fit.
    return result if offset == 0 else result + np.array(offset % 65536).astype(dtype)


def _check_range(lowest: float, highest: float, dtype: _VoxelType, shown: str) -> None:
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise InputError(f"{shown}: some voxels are not finite numbers; export it again")
    limits = np.iinfo(dtype)
    if lowest < limits.min or highest > limits.max:
        remedy = "export the scan in Hounsfield units" if dtype is np.int16 else "is it a label file?"
        found, allowed = f"{lowest:g} to {highest:g}", f"{limits.min} to {limits.max}"
        raise InputError(f"{shown}: voxels must lie within {allowed}, found {found}; {remedy}")


def _canonical_volume(image: _Image, shown: str, name: str, path: Path | None) -> Volume:
    i, j, k = image.stored.shape
    geometry = {field: np.array(image.header[field]) for field in _GEOMETRY_FIELDS}
    grid = SourceGrid((i, j, k), image.affine, io_orientation(image.affine), geometry)
    voxels = _converted(image.stored, image.scaling, np.int16, shown)
    return Volume(_to_canonical(voxels, grid.orientation), _canonical_affine(grid.affine, grid.shape), grid, name, path)


def _to_canonical(array: npt.NDArray[Any], orientation: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Turn `[i, j, k]` into `[z, row, col]`; a copy only where the axes run otherwise."""
    return np.ascontiguousarray(apply_orientation(array, ornt_transform(orientation, _LPS)).T)


def _canonical_affine(affine: Affine, shape: tuple[int, ...]) -> Affine:
    lps_affine: Affine = affine @ inv_ornt_aff(ornt_transform(io_orientation(affine), _LPS), shape)
    return lps_affine[:, [2, 1, 0, 3]]
