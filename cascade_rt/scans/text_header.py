"""Scan files that begin with a header of text lines, as NRRD and MetaImage do: what they share.

Their voxels follow the header, or lie in a file of their own in the same folder (a detached file).
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cascade_rt.common.hashing import FileRecord, HashedFile
from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file
from cascade_rt.errors import InputWarning
from cascade_rt.scans.names import METAIMAGE_SUFFIXES, NRRD_SUFFIXES, is_mask_name, split_suffix
from cascade_rt.scans.nifti.decompression import Bunzip2Stream, DecompressedStream, GunzipStream, ZlibStream
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.nifti.placement import (
    aligned_geometry,
    assume,
    check_affine,
    check_spacing,
    shear_warnings,
    unplaced_geometry,
)
from cascade_rt.scans.nifti.voxel_stream import ImageHeader, VoxelStream, open_hashed

LONGEST_HEADER = 1 << 20
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_DECOMPRESSION: dict[str, type[DecompressedStream]] = {"gzip": GunzipStream, "zlib": ZlibStream, "bzip2": Bunzip2Stream}
_NAMES_FILE = re.compile(rb"(?:ElementDataFile\s*=|data ?file:)(.*)", re.DOTALL | re.IGNORECASE)
# What stands in place of a name where the voxels lie in many files.
_SEVERAL_FILES = re.compile(r"LIST\b|.*%", re.IGNORECASE)


@dataclass(frozen=True, eq=False, slots=True)
class TextHeader:
    """What a header of text states, before it is judged."""

    sizes: tuple[int, ...]
    """Length of each axis, the fastest first."""
    space_axes: tuple[int, ...]
    """The indices of those that lie in space."""
    dtype: np.dtype[Any]
    encoding: str
    """`raw`, `gzip`, `zlib` or `bzip2`."""
    spacing: npt.NDArray[np.float64]
    """Voxel size in mm along each axis in space, not finite if it is not given."""
    directions: npt.NDArray[np.float64] | None
    """3x3: the step in mm (RAS+) along each axis in space, as columns; None if the orientation is not stated."""
    origin: npt.NDArray[np.float64]
    """The center of the first voxel in mm (RAS+)."""
    missing: str
    """What the header lacks if the orientation is not stated."""
    data_file: str | None = None
    """The file of the voxels; None if they follow the header."""
    least_bytes: int = 0
    """Number of bytes that the header promises of the compressed voxels, or 0."""


def header_lines(file: BinaryIO, magic: bytes) -> Iterator[bytes]:
    """Yield the lines of a header as they are, up to the end of the file.

    Raises:
        RejectedFile: The header is longer than a mebibyte.
    """
    length = 0
    while line := file.readline(LONGEST_HEADER - length + 1):
        length += len(line)
        if length > LONGEST_HEADER:
            raise RejectedFile("E_HEADER", f"its {magic.decode()} header does not end; copy or export it again")
        yield line


class TextHeaderStream(VoxelStream):
    """An open file whose header of text has been checked (see `VoxelStream`).

    The record of a scan with a detached file is that of the header's bytes followed by those of the detached file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: ScanOptions,
        parse: Callable[[BinaryIO], tuple[TextHeader, int]],
    ) -> None:
        """Open a file.

        Args:
            path: The file with the header.
            options: User-supplied facts about the file.
            parse: Reads the header from the start of a file, and returns it with its length in bytes.
        """
        self._hashed = open_hashed(os.fspath(path))
        self._file = BufferedReader(self._hashed)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            if self._size == 0:
                raise RejectedFile("E_EMPTY", "the file is empty; copy it again")
            stated, length = parse(self._file)
            self._size -= length
            if stated.data_file is not None:
                self._open_detached(os.path.dirname(os.fspath(path)), stated.data_file)
            packed = _DECOMPRESSION.get(stated.encoding)
            self._stream = packed(self._file) if packed else self._file
            self._position = 0
            self.header = _judged(stated, options)
            self._check_size(options)
            if self._size < stated.least_bytes:
                raise RejectedFile(
                    "E_TRUNCATED",
                    f"the file is truncated ({stated.least_bytes:,} compressed bytes expected, {self._size:,} found); "
                    "copy it again",
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def record(self) -> FileRecord:
        """Read the raw file to its end, and return the hash and the size of the bytes read."""
        return self._hashed.record()

    def _open_detached(self, folder: str, name: str) -> None:
        if self._size > LONGEST_HEADER:
            raise RejectedFile("E_DETACHED", "voxels follow its header, which names another file; export it again")
        path = os.path.join(folder, detached_name(name))
        with self._file:
            self._hashed.record()
            try:
                self._hashed = HashedFile(path, after=self._hashed)
            except FileNotFoundError:
                raise RejectedFile(
                    "E_NOT_FOUND", "the file of its voxels, which its header names, is missing; copy it too"
                ) from None
            except NotAPlainFileError:
                raise RejectedFile(
                    "E_NOT_A_FILE", "what its header names as the file of its voxels is none; copy it again"
                ) from None
        self._file = BufferedReader(self._hashed)
        self._size = os.fstat(self._file.fileno()).st_size


def detached_name(name: str) -> str:
    """Return the name of a detached file in the folder of its header. It is not quoted: it may name a patient.

    Raises:
        RejectedFile: The voxels lie in several files, or in another folder.
    """
    if _SEVERAL_FILES.match(name):
        raise RejectedFile("E_DETACHED", "its voxels lie in several files; save them as one")
    plain = name.removeprefix("./")
    if plain in {"", ".", ".."} or re.search(r"[/\\:\0]", plain):
        raise RejectedFile(
            "E_DETACHED", "the file of its voxels lies outside its folder; put both into one and correct the header"
        )
    if is_mask_name(plain):
        raise RejectedFile("E_DETACHED", "the file of its voxels is named like a scan or mask; save them as one file")
    return plain


def detached_file(path: Path) -> Path | None:
    """Return the file that holds the voxels of a scan file, or None if that is the scan file itself.

    A header that cannot be used has no such file either: its reader says why.
    """
    if split_suffix(path.name)[1].lower() not in {*NRRD_SUFFIXES, *METAIMAGE_SUFFIXES}:
        return None
    with (
        contextlib.suppress(OSError, NotAPlainFileError, RejectedFile),
        open_plain_file(path, follow_links=True) as file,
    ):
        name = named_file(takewhile(bytes.strip, header_lines(file, b"image")))
        return None if name is None else path.with_name(detached_name(name))
    return None


def record_with_detached(path: Path) -> FileRecord:
    """Return the hash and size of a scan file, followed by those of the file of its voxels if there is one.

    Raises:
        NotAPlainFileError: One of them is a folder, a pipe or a device.
        OSError: One of them does not exist or cannot be read.
    """
    with HashedFile(path) as file:
        record = file.record()
        if (detached := detached_file(path)) is not None:
            with HashedFile(detached, after=file) as voxels:
                record = voxels.record()
    return record


def named_file(lines: Iterable[bytes]) -> str | None:
    """Return the name that the lines of a header give to the file of the voxels; None if they follow the header."""
    named = next(filter(None, map(_NAMES_FILE.match, lines)), None)
    name = "LOCAL" if named is None else os.fsdecode(named[1]).strip()
    return None if name.upper() == "LOCAL" else name


def _judged(stated: TextHeader, options: ScanOptions) -> ImageHeader:
    """Check what a header states, and return it as the reader needs it."""
    warnings: list[InputWarning] = []
    shape, volume, volumes = _shape(stated, options, warnings)
    if stated.directions is None:
        check_spacing(stated.spacing)
        affine = assume(stated.spacing, shape, options, warnings, stated.missing)
        geometry = unplaced_geometry(stated.spacing)
        check_affine(affine)
    else:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = stated.directions, stated.origin
        check_affine(affine)
        geometry = aligned_geometry(affine)
    warnings += shear_warnings(affine)
    return ImageHeader(shape, stated.dtype, (1.0, 0.0), 0, volume, volumes, affine, geometry, tuple(warnings))


def _shape(
    stated: TextHeader, options: ScanOptions, warnings: list[InputWarning]
) -> tuple[tuple[int, int, int], int, int]:
    """Return the shape of a volume, the index of the selected volume, and the number of volumes."""
    sizes, space = stated.sizes, stated.space_axes
    if min(sizes, default=0) < 1:
        raise RejectedFile("E_DIMS", "the image has no voxels or an invalid size; export it again")
    if len(space) != 3:
        raise RejectedFile("E_NDIM", f"a scan has 3 axes, but this image has shape {sizes}; save one 3D image")
    if any(size > 1 for size in _others(sizes, space, before=space[-1])):
        raise RejectedFile("E_CHANNELS", "its voxels have several values each (colors?); save one 3D image of numbers")
    others = _others(sizes, space, before=len(sizes))
    volumes = int(np.prod(others, dtype=object)) if others else 1
    if volumes > 1 and (options.volume is None or sum(size > 1 for size in others) > 1):
        remedy = "choose one with `volume` or save one 3D image"
        raise RejectedFile("E_NDIM", f"a scan has 3 axes, but this image has shape {sizes}; {remedy}")
    if options.volume is not None and options.volume >= volumes:
        raise RejectedFile("E_NDIM", f"volume {options.volume} does not exist; the file has {volumes}, counted from 0")
    if others and volumes == 1:
        warnings.append(InputWarning("W_SQUEEZED", f"the image has {len(sizes)} axes; those of length 1 are dropped"))
    return (sizes[space[0]], sizes[space[1]], sizes[space[2]]), options.volume or 0, volumes


def _others(sizes: Sequence[int], space: Sequence[int], *, before: int) -> list[int]:
    """Return the lengths of the axes that do not lie in space, up to an axis."""
    return [size for axis, size in enumerate(sizes[:before]) if axis not in space]
