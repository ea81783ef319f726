"""Read MetaImage files (.mha, .mhd), and write masks as .mha.

The header is lines of `Key = value`, of which `ElementDataFile` is the last. The world is LPS; NIfTI's, and ours, is
RAS. `TransformMatrix` lists the direction of the first axis, then those of the others.
"""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cascade_rt.scans.grids import SourceGrid
from cascade_rt.scans.mask_content import ZLIB_BITS, Content, compressed, number, voxel_bytes
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.text_header import LPS_TO_RAS, TextHeader, TextHeaderStream, header_lines

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    # As in MetaIO, whatever the size of a C long.
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN = ("Offset", "Origin", "Position")
_ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_LAST = "ElementDataFile"
_MOST_AXES = 16

_Fields = Mapping[str, str]


class MetaImageStream(TextHeaderStream):
    """An open MetaImage file whose header has been checked (see `VoxelStream`)."""

    def __init__(self, path: str | os.PathLike[str], options: ScanOptions) -> None:
        super().__init__(path, options, parse_metaimage)


def parse_metaimage(file: BinaryIO) -> tuple[TextHeader, int]:
    """Read the header at the start of a file.

    Returns:
        The header and its length in bytes.

    Raises:
        RejectedFile: The file is not MetaImage, or its header is invalid.
    """
    fields, length = _fields(file)
    _refuse_what_is_not_read(fields)
    count = _number(fields, "NDims")
    if not 1 <= count <= _MOST_AXES:
        raise RejectedFile("E_DIMS", "the image has no voxels or an invalid size; export it again")
    sizes = tuple(_whole(value) for value in _numbers(fields, ("DimSize",), count))
    channels = _number(fields, "ElementNumberOfChannels", 1)
    spacing = np.array(_numbers(fields, ("ElementSpacing", "ElementSize"), count, math.nan))
    if "ElementSpacing" in fields or "ElementSize" in fields:
        _check_positive(spacing)
    stated = TextHeader(
        sizes=sizes if channels == 1 else (channels, *sizes),
        space_axes=tuple(range(min(count, 3))) if channels == 1 else tuple(range(1, 1 + min(count, 3))),
        dtype=_dtype(fields),
        encoding="zlib" if _flag(fields, ("CompressedData",)) else "raw",
        spacing=spacing[:3],
        directions=_directions(fields, count, spacing),
        origin=LPS_TO_RAS @ (_numbers(fields, _ORIGIN, count, 0.0) + [0.0] * 3)[:3],
        missing="no TransformMatrix",
        data_file=None if fields[_LAST].upper() == "LOCAL" else fields[_LAST],
        least_bytes=_number(fields, "CompressedDataSize", 0) if _flag(fields, ("CompressedData",)) else 0,
    )
    return stated, length


def _fields(file: BinaryIO) -> tuple[dict[str, str], int]:
    """Return the fields of a header, and its length in bytes."""
    fields: dict[str, str] = {}
    length = 0
    for line in header_lines(file, b"MetaImage"):
        length += len(line)
        key, equals, value = os.fsdecode(line).partition("=")
        key = key.strip()
        if not equals or not key.isascii() or key in fields:
            if key == "" and not equals:
                continue
            raise _damaged() if fields else _not_metaimage()
        fields[key] = value.strip()
        if key == _LAST:
            return fields, length
    raise _damaged() if {"NDims", "DimSize"} & fields.keys() else _not_metaimage()


def _not_metaimage() -> RejectedFile:
    return RejectedFile("E_NOT_METAIMAGE", "this is not a MetaImage file; export the scan again, or rename it")


def _damaged(key: str | None = None) -> RejectedFile:
    where = f" ({key})" if key else ""
    return RejectedFile("E_HEADER", f"its MetaImage header is damaged or incomplete{where}; copy or export it again")


def _refuse_what_is_not_read(fields: _Fields) -> None:
    if fields.get("ObjectType", "Image") != "Image":
        raise RejectedFile("E_NOT_METAIMAGE", "this is a MetaImage object but no image; choose the file of the scan")
    if not _flag(fields, ("BinaryData",), default=True):
        raise RejectedFile("E_ENCODING", "its voxels are text; save it with binary voxels")
    if _number(fields, "HeaderSize", 0) != 0:
        raise RejectedFile("E_OFFSET", "its voxels begin within another file (HeaderSize); save it as one .mha")
    slope = _numbers(fields, ("ElementToIntensityFunctionSlope",), 1, 1.0)
    offset = _numbers(fields, ("ElementToIntensityFunctionOffset",), 1, 0.0)
    if (slope, offset) != ([1.0], [0.0]):
        raise RejectedFile("E_SLOPE", "it scales its voxels, which few programs heed; export it in Hounsfield units")


def _dtype(fields: _Fields) -> np.dtype[Any]:
    if "ElementType" not in fields:
        raise _damaged("ElementType")
    if fields["ElementType"] not in _TYPES:
        raise RejectedFile("E_DTYPE", "its voxels are of a type that is not read (ElementType); export it as MET_SHORT")
    return np.dtype(_TYPES[fields["ElementType"]]).newbyteorder(">" if _flag(fields, _ORDER) else "<")


def _directions(fields: _Fields, count: int, spacing: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Return the step along each axis in mm (RAS+) as columns, or None if the header does not state it."""
    if not any(key in fields for key in _MATRIX) or count < 3:
        return None
    _check_positive(spacing)
    matrix = np.array(_numbers(fields, _MATRIX, count * count)).reshape(count, count)
    if matrix[:3, 3:].any() or matrix[3:, :3].any():
        raise RejectedFile("E_AFFINE", "its axes in space lean into another dimension; save one 3D image")
    steps: npt.NDArray[np.float64] = LPS_TO_RAS @ (matrix[:3, :3].T * spacing[:3])
    return steps


def _check_positive(spacing: npt.NDArray[np.float64]) -> None:
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise RejectedFile("E_SPACING", "its header gives no voxel size, or an invalid one; export it again")


def _flag(fields: _Fields, keys: tuple[str, ...], *, default: bool = False) -> bool:
    value = next((fields[key] for key in keys if key in fields), str(default))
    if value.lower() not in {"true", "false", "1", "0"}:
        raise _damaged(keys[0])
    return value.lower() in {"true", "1"}


def _number(fields: _Fields, key: str, default: int | None = None) -> int:
    (value,) = _numbers(fields, (key,), 1, default)
    return _whole(value)


def _whole(value: float) -> int:
    """Return a whole number, or 0, which is none of those that a header needs."""
    return int(value) if math.isfinite(value) and value.is_integer() else 0


def _numbers(fields: _Fields, keys: tuple[str, ...], count: int, default: float | None = None) -> list[float]:
    """Return the numbers of the first of these fields that exists."""
    key = next((each for each in keys if each in fields), None)
    if key is None and default is not None:
        return [float(default)] * count
    try:
        values = [float(value) for value in fields[key].split()] if key else []
    except ValueError:
        raise _damaged(key) from None
    if len(values) != count:
        raise _damaged(keys[0])
    return values


def metaimage_content(slabs: npt.NDArray[np.uint8], grid: SourceGrid) -> Content:
    """Yield the bytes of a mask `[k, j, i]` as .mha, on the grid of its scan."""
    packed = list(compressed(voxel_bytes(slabs), ZLIB_BITS))
    lines = [*_mask_lines(grid, sum(map(len, packed))), f"{_LAST} = LOCAL"]
    yield "".join(f"{line}\n" for line in lines).encode()
    yield from packed


def _mask_lines(grid: SourceGrid, size: int) -> Iterator[str]:
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    yield from ("ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False")
    yield from ("CompressedData = True", f"CompressedDataSize = {size}")
    if grid.assumed_orientation is None:
        yield f"TransformMatrix = {_words((LPS_TO_RAS @ grid.affine[:3, :3] / spacing).T.ravel())}"
        yield f"Offset = {_words(LPS_TO_RAS @ grid.affine[:3, 3])}"
        yield "CenterOfRotation = 0 0 0"
    yield f"ElementSpacing = {_words(spacing)}"
    yield f"DimSize = {' '.join(map(str, grid.shape))}"
    yield "ElementType = MET_UCHAR"


def _words(values: npt.NDArray[np.float64]) -> str:
    return " ".join(map(number, values))
