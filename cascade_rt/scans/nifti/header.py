"""Parse and check the header of a NIfTI file: shape, data type, scaling and voxel offset."""

import math
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from cascade_rt.errors import InputWarning
from cascade_rt.scans.nifti.foreign import describe
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.nifti.placement import GEOMETRY_FIELDS, place, what_places
from cascade_rt.scans.nifti.voxel_stream import ImageHeader

LONGEST_HEADER = 540

_KINDS: dict[bytes, tuple[type[Nifti1Header], Literal["<", ">"]]] = {
    (348).to_bytes(4, "little"): (Nifti1Header, "<"),
    (348).to_bytes(4, "big"): (Nifti1Header, ">"),
    (540).to_bytes(4, "little"): (Nifti2Header, "<"),
    (540).to_bytes(4, "big"): (Nifti2Header, ">"),
}
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_UNFIT_TYPES = {
    0: "of unknown type",
    1: "single bits",
    32: "complex numbers",
    128: "colors",
    1536: "of 128 bits",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "colors",
}
_UNSCALED = (1.0, 0.0)
# `eol_check` of NIfTI-2: the bytes that a text-mode copy would change, or zeros, as some programs leave it unset.
_LINE_ENDS = ([13, 10, 26, 10], [0, 0, 0, 0])


def header_length(start: bytes) -> int:
    """Return the length of the header in bytes, given the first bytes of a file.

    Raises:
        RejectedFile: The file is not NIfTI.
    """
    if start[:4] in _KINDS:
        return _KINDS[start[:4]][0].sizeof_hdr
    if start[344:347] in {b"n+1", b"ni1"} or start[4:7] in {b"n+2", b"ni2"}:
        raise RejectedFile("E_MAGIC", "its NIfTI header is damaged in the first four bytes; copy or export it again")
    raise RejectedFile("E_NOT_NIFTI", f"this is not a NIfTI file ({describe(start)}); convert the scan to .nii.gz")


def parse_header(block: bytes, options: ScanOptions) -> ImageHeader:
    """Check a header and parse the fields needed for reading.

    Args:
        block: The first `header_length` bytes of the file.
        options: User-supplied facts about the file.

    Raises:
        RejectedFile: A field is invalid, or the image is of an unsupported kind.
    """
    header_class, byte_order = _KINDS[block[:4]]
    fields = header_class(block, byte_order, check=False)
    _check_magic(fields)
    warnings: list[InputWarning] = []
    dtype = _parse_type(fields, byte_order, warnings)
    shape, volume, volumes = _parse_shape(fields, options, warnings)
    offset = _parse_offset(fields, dtype, warnings)
    scaling = _parse_scaling(fields, warnings)
    affine = place(fields, shape, options, warnings)
    placing = what_places(fields)
    geometry = {name: np.array(placing[name]) for name in GEOMETRY_FIELDS}
    return ImageHeader(shape, dtype, scaling, offset, volume, volumes, affine, geometry, tuple(warnings))


def _check_magic(fields: Nifti1Header) -> None:
    magic = fields["magic"].item()
    if magic == fields.pair_magic:
        raise RejectedFile("E_MAGIC", "its voxels are in another file (.hdr with .img); convert the scan to .nii.gz")
    if magic != fields.single_magic:
        raise RejectedFile("E_MAGIC", "its NIfTI header is damaged (wrong magic); copy or export it again")
    if fields.sizeof_hdr == LONGEST_HEADER and fields["eol_check"].tolist() not in _LINE_ENDS:
        raise RejectedFile(
            "E_MAGIC", "it was copied in text mode, which changed its bytes; copy it again in binary mode"
        )


def _parse_type(fields: Nifti1Header, byte_order: Literal["<", ">"], warnings: list[InputWarning]) -> np.dtype[Any]:
    code = int(fields["datatype"])
    if code not in _TYPES:
        found = _UNFIT_TYPES.get(code, f"of unknown type {code}")
        raise RejectedFile("E_DTYPE", f"its voxels are {found}, not integers or floats; export it as int16")
    dtype = np.dtype(_TYPES[code]).newbyteorder(byte_order)
    if int(fields["bitpix"]) not in {0, 8 * dtype.itemsize}:
        sentence = f"its header is inconsistent about the bits per voxel; its data type, {dtype.name}, is used"
        warnings.append(InputWarning("W_BITPIX", sentence))
    return dtype


def _parse_shape(
    fields: Nifti1Header, options: ScanOptions, warnings: list[InputWarning]
) -> tuple[tuple[int, int, int], int, int]:
    """Return the shape of a volume, the index of the selected volume, and the number of volumes."""
    axes = int(fields["dim"][0])
    sides = tuple(int(side) for side in fields["dim"][1 : axes + 1]) if 1 <= axes <= 7 else ()
    if not sides or min(sides) < 1:
        raise RejectedFile("E_DIMS", "the image has no voxels or an invalid size; export it again")
    if len(sides) < 3:
        raise RejectedFile("E_NDIM", f"a scan has 3 axes, but this image has shape {sides}; save one 3D image")
    volumes, volume = math.prod(sides[3:]), options.volume
    several_axes = sum(side > 1 for side in sides[3:]) > 1
    if several_axes or (volumes > 1 and volume is None):
        remedy = "save one 3D image" if several_axes else "choose one with `volume` or save one 3D image"
        raise RejectedFile("E_NDIM", f"a scan has 3 axes, but this image has shape {sides}; {remedy}")
    if volume is not None and volume >= volumes:
        raise RejectedFile("E_NDIM", f"volume {volume} does not exist; the file has {volumes}, counted from 0")
    if len(sides) > 3 and volumes == 1:
        warnings.append(InputWarning("W_SQUEEZED", f"the image has {len(sides)} axes; those of length 1 are dropped"))
    return (sides[0], sides[1], sides[2]), volume or 0, volumes


def _parse_offset(fields: Nifti1Header, dtype: np.dtype[Any], warnings: list[InputWarning]) -> int:
    offset = float(fields["vox_offset"])
    first = fields.single_vox_offset
    if not (offset >= first and offset.is_integer() and (offset - first) % dtype.itemsize == 0):
        raise RejectedFile("E_OFFSET", f"its header has an invalid voxel offset ({offset:g}); export it again")
    if offset % 16 != 0:
        sentence = f"the voxel offset is {offset:g}, but some programs expect a multiple of 16"
        warnings.append(InputWarning("W_OFFSET", sentence))
    return int(offset)


def _parse_scaling(fields: Nifti1Header, warnings: list[InputWarning]) -> tuple[float, float]:
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 and intercept == 0:
        return _UNSCALED
    if slope == 0 or not math.isfinite(slope):
        sentence = f"its slope of {slope:g} is invalid; the stored values are used unscaled"
        warnings.append(InputWarning("W_SLOPE", sentence))
        return _UNSCALED
    if not math.isfinite(intercept):
        raise RejectedFile("E_SLOPE", f"its intercept is not finite ({intercept:g}); export it again")
    if slope < 0:
        sentence = f"its slope of {slope:g} inverts the stored values; is it right?"
        warnings.append(InputWarning("W_SLOPE", sentence))
    return slope, intercept
