"""Read a CT scan from DICOM slice by slice."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from cascade_rt.common.hashing import FileRecord
from cascade_rt.errors import InputWarning
from cascade_rt.scans.checks import check_content, geometry_warnings
from cascade_rt.scans.dicom.conversion import SliceConversion
from cascade_rt.scans.dicom.headers import Header, dicom_gate
from cascade_rt.scans.dicom.pixels import PixelFile
from cascade_rt.scans.dicom.selection import open_series
from cascade_rt.scans.dicom.slices import Slice
from cascade_rt.scans.dicom.stack import affine_of
from cascade_rt.scans.dicom_headers import DicomHeaders
from cascade_rt.scans.grids import CanonicalGrid, SourceGrid
from cascade_rt.scans.nifti.gate import RejectedFile, input_gate
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.nifti.placement import check_affine, shear_warnings
from cascade_rt.scans.volume import Volume, array_geometry

_SUFFIXES = {".dcm", ".zip"}


class DicomReader:
    """A DICOM series that is being read (see `ScanReader`).

    Opening the reader reads the headers of all files and checks that their slices form one scan. Pixels are read and
    decoded in the order of the slices. Each file is read once: its head when the reader is opened, the rest when its
    slice is needed. Only slices that are there twice are read again. Not thread-safe.

    Raises:
        InputError: From any method, if the scan cannot be used.
        BackendUnavailableError: pydicom, or a decoder for the pixels, is not installed.
    """

    volume: Volume
    """Shape, geometry and headers are final. Slices are valid once `batches` has yielded them."""

    def __init__(self, path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> None:
        """Open a scan.

        Args:
            path: The folder of a series or a study, a zip archive of one, or a DICOM file.
            options: Facts that the user supplies, such as which series of a study to read.
        """
        self._shown, self._options = os.fspath(path), options
        with ExitStack() as stack:
            self._slices = stack.enter_context(open_series(Path(path), options.series))
            with input_gate(self._shown):
                grid = _source_grid(self._slices, options)
                canonical = CanonicalGrid.of(grid)
                voxels = np.empty(canonical.shape, dtype=np.int16)
            self._open = stack.pop_all()
        self._wanted = grid.from_canonical(voxels)
        self._conversion = SliceConversion(options.hu_offset)
        self._done = 0
        self._file: tuple[Header, PixelFile] | None = None
        location = Path(os.path.abspath(self._shown))
        self.volume = Volume(
            voxels,
            canonical.affine,
            grid,
            scan_name(location),
            location,
            shear_warnings(grid.affine),
            scattered=options.scattered,
            dicom=_headers_of(self._slices),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self._file = None
        self._open.close()

    def batches(self, size: int) -> Iterator[slice]:
        """Read the scan in the order of its slices, and yield the slices of the volume just read (see `ScanReader`)."""
        for part, slabs in self.volume.grid.batches(size):
            self._read_until(slabs)
            yield part

    def finish(self) -> Volume:
        """Read the rest of the scan, and check it as a whole.

        Returns:
            The volume with all warnings. `Volume.file` is described in `series_record`.
        """
        self._read_until(len(self._slices))
        with input_gate(self._shown):
            warnings: list[InputWarning] = [*self.volume.warnings, *geometry_warnings(self.volume.canonical_grid)]
            warnings += self._conversion.check()
            warnings += check_content(
                self.volume.voxels,
                self._conversion.seen,
                assume_hu=self._options.assume_hu,
                filled=self._conversion.filled,
                padded=self._conversion.padded,
            )
        record = series_record(self._slices)
        self.close()
        self.volume = replace(self.volume, warnings=tuple(warnings), file=record)
        return self.volume

    def _read_until(self, stop: int) -> None:
        for index in range(self._done, stop):
            entry = self._slices[index]
            if self._file is None or self._file[0] is not entry.header:
                self._file = entry.header, PixelFile(entry.header)
            with input_gate(entry.shown):
                stored = self._file[1].frame(entry.frame or 0)
                self._conversion.convert(entry, stored, self._wanted[..., index])
            self._done = index + 1


def scan_name(path: Path) -> str:
    """Return the name of a scan in reports: that of its folder, or of its file without .dcm or .zip."""
    return path.stem if path.suffix.lower() in _SUFFIXES and not path.is_dir() else path.name


def read_series_grid(path: str | os.PathLike[str], options: ScanOptions = DEFAULT_SCAN_OPTIONS) -> CanonicalGrid:
    """Read the grid of a scan from its headers alone. Raises like `DicomReader`."""
    with open_series(Path(path), options.series) as slices, input_gate(os.fspath(path)):
        return CanonicalGrid.of(_source_grid(slices, options))


def record_series(path: str | os.PathLike[str], series: str | None = None) -> FileRecord:
    """Read the files of a series without decoding them, and return their record. Raises like `DicomReader`."""
    with open_series(Path(path), series) as slices:
        return series_record(slices)


def series_record(slices: Sequence[Slice]) -> FileRecord:
    """Return the record of the files of a series, which depends on neither their names nor where they lie.

    Returns:
        As bytes, the sum of the sizes of the files. As hash, the SHA-256 of one line `<SOPInstanceUID> <SHA-256 of the
        file in hexadecimal>` and a line feed per file, in ASCII, sorted.
    """
    lines, total = [], 0
    for header in _headers(slices):
        record = header.file.record()
        with dicom_gate(header.file.shown):
            lines.append(f"{header.dataset.get('SOPInstanceUID') or ''} {record.sha256}\n")
        total += record.bytes
    return FileRecord(hashlib.sha256("".join(sorted(lines)).encode("ascii", "replace")).hexdigest(), total)


def _headers(slices: Iterable[Slice]) -> list[Header]:
    return list({id(entry.header): entry.header for entry in slices}.values())


def _headers_of(slices: Sequence[Slice]) -> DicomHeaders | None:
    """Return the headers in the order of the slices; None if they are of several multi-frame objects."""
    headers = _headers(slices)
    if slices[0].frame is None:
        return DicomHeaders(tuple(entry.header.dataset for entry in slices))
    if len(headers) > 1:
        return None
    return DicomHeaders((headers[0].dataset,), tuple((entry.frame or 0) + 1 for entry in slices))


def _source_grid(slices: Sequence[Slice], options: ScanOptions) -> SourceGrid:
    """Return the grid of checked slices. Raises RejectedFile if it is too large, or the options do not fit."""
    rows, columns = slices[0].shape
    voxels = rows * columns * len(slices)
    if voxels > options.max_voxels:
        sentence = f"the image has {voxels:,} voxels, but only {options.max_voxels:,} are allowed"
        raise RejectedFile("E_TOO_LARGE", f"{sentence}; crop it or allow more with `max_voxels`")
    if options.volume:
        raise RejectedFile("E_NDIM", f"has one volume, not volume {options.volume}; leave out `volume`")
    affine = affine_of(slices)
    check_affine(affine)
    return SourceGrid.of((columns, rows, len(slices)), affine, array_geometry(affine))
