"""Read NRRD files (.nrrd, .nhdr), and write masks as NRRD with the fields in which 3D Slicer looks for segments.

pynrrd parses the header, and only that: it would read all voxels before their number could be judged. The world is that
of the field `space`: RAS, LAS or LPS.
"""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.packages import import_package
from cascade_rt.scans.grids import SourceGrid
from cascade_rt.scans.mask_content import GZIP_BITS, Content, compressed, number, voxel_bytes
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.text_header import (
    LPS_TO_RAS,
    TextHeader,
    TextHeaderStream,
    detached_name,
    header_lines,
    named_file,
)

_MAGIC = b"NRRD000"
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_TO_RAS = {
    **dict.fromkeys(("right-anterior-superior", "RAS"), np.eye(3)),
    **dict.fromkeys(("left-anterior-superior", "LAS"), np.diag([-1.0, 1.0, 1.0])),
    **dict.fromkeys(("left-posterior-superior", "LPS"), LPS_TO_RAS),
}
_WITH_TIME = ("-time", "T")
_IN_SPACE = {"domain", "space"}
_SEGMENTS = ((ORGAN_LABEL, "pancreas", "0.96 0.80 0.40"), (TUMOR_LABEL, "tumor", "0.85 0.20 0.20"))
"""Label, name and color of each segment."""

_Fields = Mapping[str, Any]


class NrrdStream(TextHeaderStream):
    """An open NRRD file whose header has been checked (see `VoxelStream`)."""

    def __init__(self, path: str | os.PathLike[str], options: ScanOptions) -> None:
        super().__init__(path, options, parse_nrrd)


def parse_nrrd(file: BinaryIO) -> tuple[TextHeader, int]:
    """Read the header at the start of a file.

    Returns:
        The header and its length in bytes.

    Raises:
        RejectedFile: The file is not NRRD, or its header is invalid.
        BackendUnavailableError: pynrrd is not installed.
    """
    lines = []
    for line in header_lines(file, b"NRRD"):
        lines.append(line)
        if not lines[0].startswith(_MAGIC):
            raise RejectedFile("E_NOT_NRRD", "this is not an NRRD file; export the scan again, or rename it")
        if not line.strip():
            break
    data_file = named_file(lines)
    if data_file is not None:
        # Before the header is parsed: it ends in a list of names where there are several files.
        detached_name(data_file)
    fields = _fields(lines)
    if data_file is None and lines[-1].strip():
        raise RejectedFile("E_TRUNCATED", "the file is truncated inside its header; copy it again")
    return _stated(fields, data_file), sum(map(len, lines))


def _fields(lines: list[bytes]) -> _Fields:
    """Return the fields of a header as pynrrd parses them."""
    nrrd = import_package("nrrd", needed_by="reading NRRD", extra="formats")
    try:
        fields: _Fields = nrrd.read_header(lines)
    except (nrrd.NRRDError, ValueError, IndexError, OverflowError):
        # Not with its own words, which quote the header.
        raise _damaged() from None
    return fields


def _damaged(field: str | None = None) -> RejectedFile:
    where = f" ({field})" if field else ""
    return RejectedFile("E_HEADER", f"its NRRD header is damaged or incomplete{where}; copy or export it again")


def _stated(fields: _Fields, data_file: str | None) -> TextHeader:
    for name in ("dimension", "type", "encoding", "sizes"):
        if name not in fields:
            raise _damaged(name)
    sizes = tuple(int(size) for size in fields["sizes"])
    if fields["dimension"] != len(sizes):
        raise _damaged("sizes")
    if any(fields.get(name, 0) != 0 for name in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise RejectedFile("E_OFFSET", "its voxels begin within another file (a skip); save it as one .nrrd")
    if fields["encoding"] not in _ENCODINGS:
        raise RejectedFile("E_ENCODING", "its voxels are text or in an encoding that is not read; save it as gzip")
    space_axes, directions, origin = _placement(fields, len(sizes))
    spacing = _spacing(fields, len(sizes), space_axes)
    if directions is not None:
        _check_units(fields)
    return TextHeader(
        sizes=sizes,
        space_axes=space_axes,
        dtype=_dtype(fields),
        encoding=_ENCODINGS[fields["encoding"]],
        spacing=spacing,
        directions=directions,
        origin=origin,
        missing="no space with space directions",
        data_file=data_file,
    )


def _dtype(fields: _Fields) -> np.dtype[Any]:
    if fields["type"] not in _TYPES:
        raise RejectedFile("E_DTYPE", "its voxels are of a type that is not read; export it as short")
    dtype = np.dtype(_TYPES[fields["type"]])
    if dtype.itemsize == 1:
        return dtype
    if fields.get("endian") not in {"little", "big"}:
        raise _damaged("endian")
    return dtype.newbyteorder(">" if fields["endian"] == "big" else "<")


def _check_units(fields: _Fields) -> None:
    """Refuse units other than mm. Most files do not name them, and mean mm."""
    if any(unit.lower() not in {"", "mm", "millimeter", "millimeters"} for unit in fields.get("space units", ())[:3]):
        raise RejectedFile("E_UNITS", "its spacing is not given in mm (space units); export it in mm")


_Placement = tuple[tuple[int, ...], npt.NDArray[np.float64] | None, npt.NDArray[np.float64]]


def _placement(fields: _Fields, count: int) -> _Placement:
    """Return the axes in space, the step along each in mm (RAS+) as columns, None if not stated, and the origin."""
    nowhere = np.zeros(3)
    to_ras, matrix = _to_ras(str(fields.get("space", ""))), fields.get("space directions")
    if matrix is None:
        return _axes_by_kind(fields, count), None, nowhere
    if len(matrix) != count:
        raise _damaged("space directions")
    # A row without numbers is an axis of values, such as colors; with four dimensions, one without space is time.
    is_time = [matrix.shape[1] == 4 and not row[:3].any() for row in matrix]
    in_space = tuple(axis for axis in range(count) if np.isfinite(matrix[axis]).all() and not is_time[axis])
    if to_ras is None:
        return in_space, None, nowhere
    dimensions = matrix.shape[1]
    origin = np.asarray(fields.get("space origin", np.zeros(dimensions)))
    if dimensions not in {3, 4} or origin.shape != (dimensions,):
        raise _damaged("space origin")
    steps = matrix[list(in_space)]
    if steps[:, 3:].any():
        raise RejectedFile("E_AFFINE", "its axes in space lean into another dimension; save one 3D image")
    return in_space, to_ras @ steps[:, :3].T, to_ras @ origin[:3]


def _to_ras(space: str) -> npt.NDArray[np.float64] | None:
    """Return what turns the axes of a named space into those of RAS, or None if it does not tell left from right."""
    return next((_TO_RAS[name] for end in ("", *_WITH_TIME) if (name := space.removesuffix(end)) in _TO_RAS), None)


def _axes_by_kind(fields: _Fields, count: int) -> tuple[int, ...]:
    """Return the axes in space where no directions are given: by their kinds, otherwise the first three."""
    kinds = fields.get("kinds", ())
    if len(kinds) == count and any(kind in _IN_SPACE for kind in kinds):
        return tuple(axis for axis, kind in enumerate(kinds) if kind in _IN_SPACE)
    return tuple(range(min(count, 3)))


def _spacing(fields: _Fields, count: int, space_axes: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the voxel size along each axis in space, NaN if it is not given."""
    if "space directions" in fields:
        lengths: npt.NDArray[np.float64] = np.linalg.norm(fields["space directions"][list(space_axes)], axis=1)
        return lengths
    spacings = fields.get("spacings", ())
    if len(spacings) != count:
        return np.full(len(space_axes), math.nan)
    return np.asarray(spacings, dtype=np.float64)[list(space_axes)]


def nrrd_content(slabs: npt.NDArray[np.uint8], grid: SourceGrid) -> Content:
    """Yield the bytes of a mask `[k, j, i]` as NRRD, on the grid of its scan."""
    lines = (*_mask_lines(grid), *_segment_lines(slabs))
    yield "".join(f"{line}\n" for line in (*lines, "")).encode()
    yield from compressed(voxel_bytes(slabs), GZIP_BITS)


def _mask_lines(grid: SourceGrid) -> Iterator[str]:
    yield from ("NRRD0004", "type: unsigned char", "dimension: 3")
    sizes = f"sizes: {' '.join(map(str, grid.shape))}"
    if grid.assumed_orientation is None:
        yield from ("space: left-posterior-superior", sizes)
        yield f"space directions: {' '.join(_vector(LPS_TO_RAS @ grid.affine[:3, axis]) for axis in range(3))}"
    else:
        yield from (sizes, f"spacings: {' '.join(map(number, np.linalg.norm(grid.affine[:3, :3], axis=0)))}")
    yield from ("kinds: domain domain domain", "encoding: gzip")
    if grid.assumed_orientation is None:
        yield f"space origin: {_vector(LPS_TO_RAS @ grid.affine[:3, 3])}"


def _segment_lines(slabs: npt.NDArray[np.uint8]) -> Iterator[str]:
    """Yield the fields of the segments that the mask has."""
    extents = ((label, name, color, _extent(slabs, label)) for label, name, color in _SEGMENTS)
    for index, (label, name, color, extent) in enumerate(each for each in extents if each[3]):
        values = {"ID": name, "Name": name, "Color": color, "LabelValue": label, "Layer": 0, "Extent": extent}
        values |= {"NameAutoGenerated": 0, "ColorAutoGenerated": 0, "Tags": ""}
        yield from (f"Segment{index}_{key}:={value}" for key, value in values.items())
    yield from ("Segmentation_ContainedRepresentationNames:=Binary labelmap|", "Segmentation_ConversionParameters:=")
    yield from (f"Segmentation_{which}Representation:=Binary labelmap" for which in ("Master", "Source"))
    yield "Segmentation_ReferenceImageExtentOffset:=0 0 0"


def _extent(slabs: npt.NDArray[np.uint8], label: int) -> str:
    """Return the first and last voxel of a label along i, j and k, or "" if the mask has none."""
    there = np.zeros(slabs.shape[1:], dtype=bool)
    slabs_there = []
    for index, slab in enumerate(slabs):
        found = slab == label
        if found.any():
            slabs_there.append(index)
            there |= found
    if not slabs_there:
        return ""
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    ends = (columns[0], columns[-1], rows[0], rows[-1], slabs_there[0], slabs_there[-1])
    return " ".join(map(str, ends))


def _vector(values: npt.NDArray[np.float64]) -> str:
    return f"({','.join(map(number, values))})"
