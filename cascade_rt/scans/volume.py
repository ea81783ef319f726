"""Read CT scans and masks from files into the canonical frame, and write masks back.

The canonical frame is `[z, row, col]`: z toward superior, row toward posterior, col toward the patient's left, like the
pixels of axial DICOM slices. A file may store its axes in any of 48 orientations. Masks are written on the file's grid.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from cascade_rt.common.arguments import as_path, check_argument
from cascade_rt.common.atomic import atomic_write
from cascade_rt.common.byte_probabilities import UNIT
from cascade_rt.common.hashing import FileRecord
from cascade_rt.common.labels import Target
from cascade_rt.errors import InputWarning, OutputError, UsageError
from cascade_rt.scans.checks import check_content, geometry_warnings
from cascade_rt.scans.dicom_headers import DicomHeaders
from cascade_rt.scans.formats import mask_content, open_stream
from cascade_rt.scans.grids import Affine, CanonicalGrid, SourceGrid, check_same_grid
from cascade_rt.scans.names import MASKS_IN_WORDS, NIFTI_SUFFIXES, is_mask_name, split_suffix
from cascade_rt.scans.nifti.blocks import BlockReader
from cascade_rt.scans.nifti.conversion import HuConversion, LabelConversion
from cascade_rt.scans.nifti.gate import RejectedFile, input_gate
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.nifti.placement import aligned_geometry, check_affine, shear_warnings
from cascade_rt.scans.nifti.voxel_stream import VoxelStream
from cascade_rt.scans.nifti_masks import nifti_content, source_header

# Assumed for a label file without orientation, as nibabel does. The label must still lie on the grid of its scan.
_LABEL_ORIENTATION = "LAS"
_OF_THE_SCAN = ("W_ORIENT", "W_UNITS", "W_SPACING", "W_SHEAR", "W_QFAC")
"""Warnings dropped for labels: they do not matter for a label on the grid of its scan, and the scan has them too."""
PROBABILITIES_MARK = "cascade-rt probabilities"
"""How the description in the header of a file of probabilities begins."""
_MAP_NAMES: Mapping[Target, str] = {"organ": "pancreas", "tumor": "tumor"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """A CT scan in the canonical frame.

    Raises:
        UsageError: Voxels, affine and grid disagree, or have the wrong type.
    """

    voxels: npt.NDArray[np.int16]
    """`[z, row, col]`, Hounsfield units, C-contiguous."""
    affine: Affine
    """4x4, from the canonical index (z, row, col) to world mm (RAS+, the NIfTI convention)."""
    grid: SourceGrid
    """The grid of the input."""
    name: str
    """The file name without its suffix; "array" for arrays."""
    path: Path | None = None
    """The absolute path of the source file, which `write_mask` refuses to overwrite."""
    warnings: tuple[InputWarning, ...] = ()
    """What is doubtful about the scan."""
    scattered: bool = False
    """Whether the slices are independent of one another, so that nothing may be judged across them."""
    file: FileRecord | None = None
    """Hash and size of the bytes read, if the scan was read to the end of its file."""
    dicom: DicomHeaders | None = None
    """The headers of a scan that was read from DICOM."""

    def __post_init__(self) -> None:
        check_argument("voxels", self.voxels, np.ndarray, "an array [z, row, col] of int16")
        check_argument("grid", self.grid, SourceGrid, "the SourceGrid of the scan")
        if self.voxels.dtype != np.int16:
            raise UsageError(f"voxels: have dtype {self.voxels.dtype}; pass int16 or use Volume.from_array")
        expected = CanonicalGrid.of(self.grid)
        if self.voxels.shape != expected.shape:
            found = f"{self.voxels.shape}, but the grid has {expected.shape}"
            raise UsageError(f"voxels: have shape {found}; make a partial volume with Volume.from_array")
        if np.shape(self.affine) != (4, 4) or not np.allclose(self.affine, expected.affine):
            raise UsageError("affine: does not match the grid; for another affine use Volume.from_array")

    def __repr__(self) -> str:
        shape, spacing = ("x".join(f"{each:g}" for each in sides) for sides in (self.voxels.shape, self.spacing_mm))
        return f"<Volume {self.name!r}: {shape} voxels of {spacing} mm (z, row, col)>"

    @property
    def canonical_grid(self) -> CanonicalGrid:
        """The shape and the affine, without the voxels."""
        return CanonicalGrid(self.voxels.shape, self.affine, self.grid.assumed_orientation)

    @property
    def head_first(self) -> bool:
        """False, as for every `ScanSource` whose slices are all available."""
        return False

    def wait_for(self, part: slice) -> None:
        """Return at once: all slices are available."""

    def finish(self) -> "Volume":
        """Return the volume itself: it is complete."""
        return self

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance in mm between neighbors along z, row and col."""
        return self.canonical_grid.spacing_mm

    @property
    def voxel_volume_ml(self) -> float:
        """The volume of one voxel in ml, also when the axes are sheared."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @classmethod
    def from_array(
        cls, array: npt.ArrayLike, affine: npt.ArrayLike, *, name: str = "array", scattered: bool = False
    ) -> "Volume":
        """Make a volume from an array. Only the geometry is judged; the caller vouches for the values.

        Args:
            array: `[i, j, k]`, Hounsfield units in any integer or float type, axes in any orientation. Anything numpy
                can turn into an array, such as the `dataobj` of a nibabel image or a CPU tensor. The volume shares its
                memory if no conversion is needed.
            affine: 4x4, from the index (i, j, k) to world mm (RAS+).
            name: The name of the scan in messages and reports.
            scattered: Whether the slices are independent of one another.

        Raises:
            InputError: The array or the affine cannot belong to a CT scan.
        """
        check_argument("name", name, str, "a string")
        check_argument("scattered", scattered, bool, "True or False")
        with input_gate(name):
            values, matrix = _as_array(array), _as_affine(affine)
            shape = _check_array(values)
            check_affine(matrix)
            grid = SourceGrid.of(shape, matrix, aligned_geometry(matrix))
            voxels, warnings = _to_hu(values.reshape(grid.shape), grid)
        canonical = CanonicalGrid.of(grid)
        warnings += (*shear_warnings(matrix), *geometry_warnings(canonical))
        return cls(voxels, canonical.affine, grid, name, warnings=warnings, scattered=scattered)


class FileReader:
    """A scan file that is being read: slices can be used as they arrive, before the end of the file is reached.

    Opening the reader checks the header. `volume` is allocated at once, but a slice is valid only after `batches` has
    yielded it or `read_until` has passed it. Only `finish` verifies that the file is undamaged (its checksum is at the
    end) and that the values are those of a CT scan. Until `finish` has returned, no result computed from the slices may
    be kept. Not thread-safe.

    Example:
        with open_scan("scan.nii.gz") as reader:
            for part in reader.batches(16):
                segment(reader.volume.voxels[part])
            volume = reader.finish()

    Raises:
        InputError: From any method, if the file cannot be used.
    """

    volume: Volume
    """Shape and geometry are final. Voxels are valid as described above. Warnings are those found so far."""

    def __init__(self, path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> None:
        self._shown, self._options = os.fspath(path), options
        name, _ = split_suffix(os.path.basename(self._shown))
        with input_gate(self._shown):
            self._stream = open_stream(path, options)
            header = self._stream.header
            grid = _source_grid(self._stream)
            canonical = CanonicalGrid.of(grid)
            slope, intercept = header.scaling
            self._conversion = HuConversion(header.dtype, (slope, intercept + options.hu_offset))
            voxels = np.empty(canonical.shape, dtype=np.int16)
            self._blocks = BlockReader(self._stream, grid.from_canonical(voxels), self._conversion)
        location = Path(os.path.abspath(self._shown))
        self.volume = Volume(
            voxels, canonical.affine, grid, name, location, header.warnings, scattered=options.scattered
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def batches(self, size: int) -> Iterator[slice]:
        """Read the scan and yield its slices as `[0, size)`, `[size, 2 size)`, ..., each batch as soon as it is valid.

        Each slice is yielded once, and the batches do not depend on the file's axis order. If the file begins at the
        head, the batches arrive in descending order.
        """
        for part, slabs in self.volume.grid.batches(size):
            self._read(slabs)
            yield part

    def read_until(self, stop: int) -> None:
        """Continue reading until slices `[0, stop)` are valid: the whole scan, unless the file begins at the feet."""
        self._read(self.volume.grid.slabs_before(0, stop))

    def finish(self) -> Volume:
        """Read the rest of the file to its end, and check the whole scan.

        Returns:
            The volume with all warnings.
        """
        with input_gate(self._shown):
            self._blocks.read_until(self.volume.grid.shape[2])
            warnings = [*self._stream.finish(), *geometry_warnings(self.volume.canonical_grid)]
            warnings += self._conversion.check()
            warnings += check_content(
                self.volume.voxels,
                (self._conversion.lowest, self._conversion.highest),
                assume_hu=self._options.assume_hu,
                filled=self._conversion.filled,
                padded=self._conversion.padded,
            )
            record = self._stream.record()
        self.close()
        self.volume = replace(self.volume, warnings=tuple(warnings), file=record)
        return self.volume

    def _read(self, slabs: int) -> None:
        with input_gate(self._shown):
            self._blocks.read_until(slabs)


def read_grid(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> CanonicalGrid:
    """Read the grid of a scan from its header alone.

    Args:
        path: A NIfTI, NRRD or MetaImage file.
        options: User-supplied facts that the file does not state.

    Raises:
        InputError: The file is missing, the header is damaged or does not describe a single 3D image of numbers, or its
            orientation is unknown.
    """
    with input_gate(os.fspath(path)), open_stream(path, options) as stream:
        return CanonicalGrid.of(_source_grid(stream))


def read_label_grid(path: str | os.PathLike[str], scan: CanonicalGrid) -> CanonicalGrid:
    """Read the grid of a scan's label file from its header alone, placed as `read_labels` does.

    Raises:
        InputError: The file is missing, or its header is damaged or does not describe a single 3D image of numbers.
    """
    return read_grid(path, _label_options(scan.assumed_orientation))


@dataclass(frozen=True, eq=False, slots=True)
class LabelImage:
    """The content of a label file."""

    voxels: npt.NDArray[np.uint8]
    """`[z, row, col]`, C-contiguous."""
    warnings: tuple[InputWarning, ...]
    """What is doubtful about the file, except its placement, which is checked against the scan."""


def read_mask(path: str | os.PathLike[str], like: Volume | CanonicalGrid | None = None) -> npt.NDArray[np.uint8]:
    """Read a label file into the canonical frame.

    Args:
        path: A NIfTI, NRRD or MetaImage file with whole numbers from 0 to 255, axes in any orientation.
        like: The scan the labels belong to, or its grid. None skips the check against a scan.

    Returns:
        `[z, row, col]`, C-contiguous. Warnings about the file are logged; `read_labels` returns them instead.

    Raises:
        InputError: See `read_labels`.
    """
    labels = read_labels(path, like)
    for warning in labels.warnings:
        _log.warning("%s: %s", os.fspath(path), warning)
    return labels.voxels


def read_labels(
    path: str | os.PathLike[str],
    like: Volume | CanonicalGrid | None = None,
    *,
    assume_orientation: str | None = None,
) -> LabelImage:
    """Read a label file into the canonical frame, together with the warnings about it.

    Args:
        path: A NIfTI, NRRD or MetaImage file with whole numbers from 0 to 255, axes in any orientation. A file without
            orientation is given the one assumed for its scan, or LAS if none was, as in nibabel.
        like: The scan the labels belong to, or its grid. None skips the check against a scan.
        assume_orientation: The orientation that was assumed for the scan. Used only if `like` is None.

    Raises:
        InputError: See `read_volume`, except for the checks that apply only to scans. Also raised if the values are not
            all whole numbers from 0 to 255, if the slope is negative, or if the labels do not lie on the grid of
            `like`: the shapes differ, or the corners differ by more than a tenth of the smallest spacing.
    """
    shown = str(as_path("path", path))
    if like is not None:
        check_argument("like", like, (Volume, CanonicalGrid), "the Volume of the scan, or its CanonicalGrid")
    scan = like.canonical_grid if isinstance(like, Volume) else like
    assumed = assume_orientation if scan is None else scan.assumed_orientation
    with input_gate(shown), open_stream(path, _label_options(assumed)) as stream:
        grid = _source_grid(stream)
        canonical = CanonicalGrid.of(grid)
        labels = np.empty(canonical.shape, dtype=np.uint8)
        conversion = LabelConversion(stream.header.dtype, stream.header.scaling)
        BlockReader(stream, grid.from_canonical(labels), conversion).read_until(grid.shape[2])
        warnings = (*stream.finish(), *conversion.check())
    if scan is not None:
        check_same_grid(canonical, scan, shown)
    return LabelImage(labels, tuple(warning for warning in warnings if warning.code not in _OF_THE_SCAN))


def _source_grid(stream: VoxelStream) -> SourceGrid:
    header = stream.header
    return SourceGrid.of(header.shape, header.affine, header.geometry)


def _label_options(assumed: str | None) -> ScanOptions:
    """Return the options for a label file, whose orientation may be missing."""
    return ScanOptions(assume_orientation=assumed or _LABEL_ORIENTATION)


def mask_on_source_grid(mask: npt.NDArray[np.uint8], volume: Volume) -> npt.NDArray[np.uint8]:
    """Return a mask `[z, row, col]` of the volume as a view on the input's grid `[i, j, k]`.

    Raises:
        ValueError: The mask and the volume differ in shape, or the mask is not uint8.
    """
    if mask.shape != volume.voxels.shape or mask.dtype != np.uint8:
        raise ValueError(f"mask must be uint8 {volume.voxels.shape}, got {mask.dtype} {mask.shape}")
    return volume.grid.from_canonical(mask)


def write_mask(
    mask: npt.NDArray[np.uint8], volume: Volume, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a mask on the input's grid, with its shape and affine, in the format that the suffix names.

    The same mask gives the same bytes. Nothing else of the input's header is kept: no description, no extensions.
    NIfTI keeps the qform and sform of a NIfTI scan with their codes, and units; it is NIfTI-2 if the input is, or if a
    side is too long for NIfTI-1. NRRD also has the fields in which 3D Slicer looks for segments. The write is atomic.

    Args:
        mask: `[z, row, col]`, in the canonical frame of the volume.
        volume: The scan the mask belongs to.
        path: Where to write. The name ends in .nii.gz, .nii (not compressed), .nrrd, .seg.nrrd (which 3D Slicer opens
            as a segmentation) or .mha.
        overwrite: Whether an existing file may be replaced. The scan itself is never replaced.

    Raises:
        OutputExistsError: The file already exists and `overwrite` is false.
        OutputError: The name has another suffix, the path is that of the scan, or the file cannot be written.
        ValueError: The mask and the volume differ in shape, or the mask is not uint8.
    """
    check_argument("mask", mask, np.ndarray, "an array [z, row, col] of uint8")
    check_argument("volume", volume, Volume, "the Volume that the mask belongs to")
    shown = str(as_path("path", path))
    if not is_mask_name(shown):
        formats = "a mask is written as NIfTI, NRRD or MetaImage"
        raise OutputError(f"{shown}: {formats}; use a name that ends in {MASKS_IN_WORDS}")
    refuse_scan(shown, volume)
    slabs = mask_on_source_grid(mask, volume).T

    def write(file: BinaryIO) -> None:
        file.writelines(mask_content(slabs, volume.grid, split_suffix(shown)[1].lower()))

    atomic_write(shown, write, overwrite=overwrite)


def write_probabilities(
    maps: Mapping[Target, npt.NDArray[np.uint8]],
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> None:
    """Write probability maps on the input's grid, one after the other along a fourth axis.

    The header has the slope 1/255, and its description names the maps. Otherwise as `write_mask`.

    Args:
        maps: `[z, row, col]` each, in units of 1/255.
        volume: The scan the maps belong to.
        path: Where to write, as for `write_mask`.
        overwrite: Whether an existing file may be replaced.
    """
    shown = os.fspath(as_path("path", path))
    suffix = split_suffix(shown)[1].lower()
    if suffix not in NIFTI_SUFFIXES:
        raise OutputError(f"{shown}: probabilities are written as NIfTI; use a name that ends in .nii or .nii.gz")
    refuse_scan(shown, volume)
    header = source_header(volume.grid, np.uint8)
    header.set_data_shape((*volume.grid.shape, len(maps)))
    # Rounded down, so that 255 is not more than 1.
    header.set_slope_inter(float(np.nextafter(np.float32(UNIT), np.float32(0))), 0.0)
    # That of the input may be the seconds between volumes.
    header["pixdim"][4:] = 1.0
    header["descrip"] = f"{PROBABILITIES_MARK}: {', '.join(_MAP_NAMES[target] for target in maps)}"
    slabs = [mask_on_source_grid(each, volume).T for each in maps.values()]

    def write(file: BinaryIO) -> None:
        file.writelines(nifti_content(slabs, header, zipped=suffix == ".nii.gz"))

    atomic_write(shown, write, overwrite=overwrite)


def refuse_scan(path: str | os.PathLike[str], volume: Volume) -> None:
    """Raise OutputError if a result would overwrite the scan it was made from."""
    if volume.path is not None and _is_same_file(os.fspath(path), volume.path):
        sentence = "this is the scan itself, which is never overwritten; choose another name"
        raise OutputError(f"{os.fspath(path)}: {sentence}", code="E_SAME_FILE")


def _is_same_file(path: str, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _as_array(array: npt.ArrayLike) -> npt.NDArray[Any]:
    """Convert to a numpy array, because only numpy resolves the scaling, dtype and memory of an array-like object."""
    remedy = "pass a numpy array [i, j, k], such as np.asarray(image.dataobj) of a nibabel image"
    try:
        values = np.asanyarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RejectedFile(
            "E_ARRAY", f"numpy cannot make an array from {type(array).__name__} ({error}); {remedy}"
        ) from error
    if values.dtype.kind not in "biufc":
        raise RejectedFile("E_ARRAY", f"{type(array).__name__} is not an array of numbers; {remedy}")
    if isinstance(values, np.ma.MaskedArray):
        if values.mask.any():
            raise RejectedFile("E_ARRAY", "some voxels are masked; fill them, such as with array.filled(-1024)")
        values = values.data
    return np.asarray(values)


def _as_affine(affine: npt.ArrayLike) -> Affine:
    try:
        return np.array(affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        sentence = f"the affine of type {type(affine).__name__} is not a matrix of numbers"
        raise RejectedFile("E_AFFINE", f"{sentence}; pass a 4x4 matrix, such as image.affine") from error


def _check_array(array: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Return the lengths of the first three axes. Further axes must have length 1."""
    if min(array.shape, default=0) < 1:
        raise RejectedFile("E_DIMS", f"the image has no voxels (shape {array.shape}); pass another array")
    if array.ndim < 3 or any(side != 1 for side in array.shape[3:]):
        raise RejectedFile("E_NDIM", f"a scan has 3 axes, but this image has shape {array.shape}; pass one 3D image")
    if array.dtype.kind not in "iuf":
        raise RejectedFile("E_DTYPE", f"voxels must be integers or floats, not {array.dtype}; use int16")
    return array.shape[0], array.shape[1], array.shape[2]


def _to_hu(array: npt.NDArray[Any], grid: SourceGrid) -> tuple[npt.NDArray[np.int16], tuple[InputWarning, ...]]:
    """Convert `[i, j, k]` to HU `[z, row, col]`, copying only if the dtype or the axis order differs."""
    if array.dtype == np.int16:
        return np.ascontiguousarray(grid.to_canonical(array)).astype(np.int16, copy=False), ()
    conversion = HuConversion(array.dtype, (1.0, 0.0))
    voxels = np.empty(grid.to_canonical(array).shape, dtype=np.int16)
    wanted = grid.from_canonical(voxels)
    for index in range(grid.shape[2]):
        conversion.convert(array[..., index : index + 1], wanted[..., index : index + 1])
    return voxels, conversion.check()
