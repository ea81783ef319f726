"""CT scans and masks as NIfTI files, in and out of the canonical frame.

The canonical frame is `[z, row, col]`: z toward superior, row toward posterior, col toward the patient's left, like the
pixels of axial DICOM slices. A file may hold its axes in any of 48 orientations; masks go back on the file's own grid.
"""

import gzip
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from cascade_rt.atomic import atomic_write
from cascade_rt.errors import InputError, OutputError
from cascade_rt.nifti import NiftiImage, read_nifti, read_nifti_grid, split_suffix

Affine = npt.NDArray[np.float64]

_LPS = axcodes2ornt(("L", "P", "S"))
_GEOMETRY_FIELDS = (
    *("pixdim", "xyzt_units", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
# On masks a higher level costs more time than the kilobytes are worth.
_MASK_COMPRESSION = 1
# How far the corners of a label's grid may lie from those of its scan, as a part of the smallest spacing.
_GRID_TOLERANCE = 0.1


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
class CanonicalGrid:
    """Where the voxels of a scan or its labels lie, in the canonical frame."""

    shape: tuple[int, ...]
    """Voxels along `[z, row, col]`."""
    affine: Affine
    """4x4, from the index (z, row, col) to world mm (RAS+)."""

    @classmethod
    def from_source(cls, shape: tuple[int, ...], affine: Affine) -> "CanonicalGrid":
        """Turn the shape `[i, j, k]` and the affine of a file into those of `[z, row, col]`."""
        to_lps = ornt_transform(io_orientation(affine), _LPS)
        lps_affine: Affine = affine @ inv_ornt_aff(to_lps, shape)
        z, row, col = (shape[int(axis)] for axis in np.argsort(to_lps[:, 0])[::-1])
        return cls((z, row, col), lps_affine[:, [2, 1, 0, 3]])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between neighbours along z, row and col."""
        z, row, col = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(row), float(col)


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
    warnings: tuple[str, ...] = ()
    """What is doubtful about the scan, in sentences."""

    @property
    def canonical_grid(self) -> CanonicalGrid:
        """Shape and affine, without the voxels."""
        return CanonicalGrid(self.voxels.shape, self.affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between neighbours along z, row and col."""
        return self.canonical_grid.spacing_mm

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
        return _canonical_volume(NiftiImage.from_array(array, affine, name), name, None)


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a CT scan from a NIfTI-1 or NIfTI-2 file; plain or gzip is told from the content, not from the name.

    A compressed file is read to its end, so that its checksum is verified.

    Raises:
        InputError: The file is missing, damaged, not NIfTI, or not one 3D image of numbers that fit into int16.
    """
    shown = os.fspath(path)
    name, _ = split_suffix(os.path.basename(shown))
    return _canonical_volume(read_nifti(path), name, Path(os.path.abspath(shown)))


def read_grid(path: str | os.PathLike[str]) -> CanonicalGrid:
    """Read from the header alone where the voxels of a scan lie.

    Raises:
        InputError: The header is missing, damaged, or not that of one 3D image of numbers.
    """
    return CanonicalGrid.from_source(*read_nifti_grid(path))


def read_mask(path: str | os.PathLike[str], like: Volume | CanonicalGrid | None = None) -> npt.NDArray[np.uint8]:
    """Read a label file into the canonical frame.

    Args:
        path: A NIfTI file with whole numbers from 0 to 255, axes in any orientation.
        like: The scan the labels belong to, or its grid; None takes them as they are.

    Returns:
        `[z, row, col]`, C-contiguous.

    Raises:
        InputError: As in `read_volume`; or there are other numbers than 0 to 255; or the labels do not lie on the grid
            of `like`: another number of voxels, or corners that differ by more than a tenth of the smallest spacing.
    """
    image = read_nifti(path)
    labels = image.to_labels()
    mask = _to_canonical(labels, io_orientation(image.affine))
    if like is not None:
        scan = like.canonical_grid if isinstance(like, Volume) else like
        check_same_grid(CanonicalGrid.from_source(labels.shape, image.affine), scan, image.shown)
    return mask


def check_same_grid(labels: CanonicalGrid, scan: CanonicalGrid, shown: str) -> None:
    """Raise InputError where labels, called `shown`, do not lie on the grid of their scan."""
    if labels.shape != scan.shape:
        raise InputError(f"{shown}: {labels.shape} voxels, the scan has {scan.shape}; use the labels of this scan")
    corners = np.array([(*corner, 1.0) for corner in np.ndindex(2, 2, 2)]) * [*(np.array(scan.shape) - 1), 1.0]
    distance = np.linalg.norm(corners @ (labels.affine - scan.affine).T, axis=1).max()
    if distance > _GRID_TOLERANCE * min(scan.spacing_mm):
        raise InputError(f"{shown}: lies {distance:.3g} mm off the grid of the scan; use the labels of this scan")


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
    _, suffix = split_suffix(shown)
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
            f"{os.fspath(path)}: this is the scan itself, which is never overwritten; choose another name",
            code="E_SAME_FILE",
        )


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


def _canonical_volume(image: NiftiImage, name: str, path: Path | None) -> Volume:
    i, j, k = image.stored.shape
    geometry = {field: np.array(image.header[field]) for field in _GEOMETRY_FIELDS}
    grid = SourceGrid((i, j, k), image.affine, io_orientation(image.affine), geometry)
    voxels = _to_canonical(image.to_hu(), grid.orientation)
    return Volume(voxels, CanonicalGrid.from_source(grid.shape, grid.affine).affine, grid, name, path, _doubts(grid))


def _doubts(grid: SourceGrid) -> tuple[str, ...]:
    if grid.geometry["sform_code"] > 0 or grid.geometry["qform_code"] > 0:
        return ()
    return ("the file does not say how its axes lie in the patient; left, right, front and back are guessed",)


def _to_canonical(array: npt.NDArray[Any], orientation: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Turn `[i, j, k]` into `[z, row, col]`; a copy only where the axes run otherwise."""
    return np.ascontiguousarray(apply_orientation(array, ornt_transform(orientation, _LPS)).T)
