"""Reading NIfTI files whole and checked, with one sentence and a remedy for every file that cannot be read."""

import gzip
import io
import logging
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from cascade_rt.errors import InputError

_VoxelType = type[np.int16] | type[np.uint8]
_Result = TypeVar("_Result")

_HEADER_KINDS: dict[bytes, tuple[type[Nifti1Header], str]] = {
    (348).to_bytes(4, "little"): (Nifti1Header, "<"),
    (348).to_bytes(4, "big"): (Nifti1Header, ">"),
    (540).to_bytes(4, "little"): (Nifti2Header, "<"),
    (540).to_bytes(4, "big"): (Nifti2Header, ">"),
}
_CHUNK_BYTES = 4 << 20
_LARGEST_DEFLATE_RATIO = 1032

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
class NiftiImage:
    """What a NIfTI file holds. It has three axes, its voxels are numbers, and its affine is not singular."""

    stored: npt.NDArray[Any]
    """`[i, j, k]`, before scaling, in the type and the byte order of the file."""
    scaling: tuple[float, float]
    """Slope and intercept, which turn stored numbers into meant ones."""
    affine: npt.NDArray[np.float64]
    """4x4, from the index (i, j, k) to world mm (RAS+)."""
    header: Nifti1Header
    """The whole header, NIfTI-1 or NIfTI-2."""
    shown: str
    """What messages call the image: the path as it was given, or a name."""

    @classmethod
    def from_array(cls, array: npt.NDArray[Any], affine: npt.ArrayLike, shown: str) -> "NiftiImage":
        """Take an image from memory, without a copy.

        Raises:
            InputError: There are not three axes, the voxels are no numbers, or the affine is not 4x4 or singular.
        """
        shape = _check_voxels(array.shape, array.dtype, shown)
        matrix = np.array(affine, dtype=np.float64)
        _check_affine(matrix, shown)
        header = Nifti1Header()
        header.set_xyzt_units("mm")
        header.set_sform(matrix, code="aligned")
        header.set_qform(matrix, code="unknown")
        return cls(array.reshape(shape), (1.0, 0.0), matrix, header, shown)

    def to_hu(self) -> npt.NDArray[np.int16]:
        """Return the scaled voxels `[i, j, k]`, rounded; a copy only where something has to be converted.

        Raises:
            InputError: A voxel is not finite or does not fit into int16.
        """
        return _converted(self, np.int16)

    def to_labels(self) -> npt.NDArray[np.uint8]:
        """Return the scaled voxels `[i, j, k]` as labels; a copy only where something has to be converted.

        Raises:
            InputError: A voxel is not a whole number from 0 to 255.
        """
        return _converted(self, np.uint8)


def read_nifti(path: str | os.PathLike[str]) -> NiftiImage:
    """Read a NIfTI-1 or NIfTI-2 file to its end; plain or gzip is told from the content, not from the name.

    The only place that knows what nibabel, gzip and the system raise on a bad file.

    Raises:
        InputError: The file is missing, damaged, not NIfTI, or not one 3D image of numbers.
    """
    return _with_stream(path, _read_stream)


def read_nifti_grid(path: str | os.PathLike[str]) -> tuple[tuple[int, int, int], npt.NDArray[np.float64]]:
    """Read only the header of a NIfTI file: the shape `[i, j, k]` and the 4x4 affine to world mm (RAS+).

    Raises:
        InputError: The file is missing, not NIfTI, or its header is not that of one 3D image of numbers.
    """
    return _with_stream(path, lambda stream, _, shown: _read_grid(_read_header(stream, shown), shown))


def _with_stream(path: str | os.PathLike[str], read: Callable[[io.BufferedIOBase, int, str], _Result]) -> _Result:
    """Call `read` with the plain content of a file, the most bytes it can have, and what messages call it."""
    shown = os.fspath(path)
    try:
        with open(shown, "rb") as file, np.errstate(all="ignore"):
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise InputError(f"{shown}: the file is empty; copy it again")
            if file.peek(2)[:2] != b"\x1f\x8b":
                return read(file, size, shown)
            with gzip.GzipFile(fileobj=file) as stream:
                return read(stream, size * _LARGEST_DEFLATE_RATIO, shown)
    except tuple(_REASONS) as error:
        reason = next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
        raise InputError(f"{shown}: {reason.format(error=getattr(error, 'strerror', None) or error)}") from error


def _read_grid(header: Nifti1Header, shown: str) -> tuple[tuple[int, int, int], npt.NDArray[np.float64]]:
    shape = _check_voxels(header.get_data_shape(), header.get_data_dtype(), shown)
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    _check_affine(affine, shown)
    return shape, affine


def _read_stream(stream: io.BufferedIOBase, most_bytes: int, shown: str) -> NiftiImage:
    header = _read_header(stream, shown)
    shape, affine = _read_grid(header, shown)
    dtype = header.get_data_dtype()
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
    return NiftiImage(stored, (1.0 if slope is None else slope, intercept or 0.0), affine, header, shown)


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


def _check_affine(affine: npt.NDArray[np.float64], shown: str) -> None:
    if affine.shape != (4, 4) or not (np.abs(affine) < 1e9).all():
        raise InputError(f"{shown}: the affine must be a 4x4 matrix of numbers that can be mm; export it again")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-9 or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * lengths.prod():
        raise InputError(f"{shown}: the affine is singular, two axes run alike or one has no length; export it again")


def _converted(image: NiftiImage, dtype: _VoxelType) -> npt.NDArray[Any]:
    """Scale `[i, j, k]` to HU (int16, rounded) or to labels (uint8, which must be whole numbers)."""
    stored, (slope, intercept), shown = image.stored, image.scaling, image.shown
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
