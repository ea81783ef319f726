"""Open a NIfTI file, and stream its voxels in stored order."""

import io
import os

from cascade_rt.common.hashing import FileRecord
from cascade_rt.errors import InputWarning
from cascade_rt.scans.names import split_suffix
from cascade_rt.scans.nifti.decompression import MAGIC, GunzipStream
from cascade_rt.scans.nifti.foreign import describe
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.header import header_length, parse_header
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.nifti.voxel_stream import VoxelStream, open_hashed

_SHORTEST_HEADER = 348


class NiftiStream(VoxelStream):
    """An open NIfTI file whose header has been checked (see `VoxelStream`). Gzip is detected from the content."""

    def __init__(self, path: str | os.PathLike[str], options: ScanOptions) -> None:
        self._path = os.fspath(path)
        self._hashed = open_hashed(self._path)
        self._file = io.BufferedReader(self._hashed)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            if self._size == 0:
                raise RejectedFile("E_EMPTY", "the file is empty; copy it again")
            self._compressed = self._file.peek(2)[:2] == MAGIC
            self._stream = GunzipStream(self._file) if self._compressed else self._file
            self._position = 0
            self.header = parse_header(self._read_header(), options)
            self._check_size(options)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def record(self) -> FileRecord:
        """Read the raw file to its end, and return the hash and the size of the bytes read."""
        return self._hashed.record()

    def _read_header(self) -> bytes:
        start = self._read_up_to(_SHORTEST_HEADER)
        if not start:
            raise RejectedFile("E_EMPTY", "the compressed file is empty; copy it again")
        try:
            length = header_length(start)
        except RejectedFile as refusal:
            if refusal.code == "E_NOT_NIFTI" and self._path.lower().endswith(".gz") and not self._compressed:
                sentence = f"the file is named .gz but is not compressed with gzip ({describe(start)})"
                raise RejectedFile("E_NOT_GZIP", f"{sentence}; copy the scan again") from None
            raise
        block = start + self._read_up_to(length - len(start))
        if len(block) < length:
            raise RejectedFile("E_TRUNCATED", "the file is truncated inside its header; copy it again")
        return block

    def _read_up_to(self, length: int) -> bytes:
        block = memoryview(bytearray(length))
        filled = 0
        while filled < length and (count := self._stream.readinto(block[filled:])):
            filled += count
        self._position += filled
        return bytes(block[:filled])

    def _name_warnings(self) -> tuple[InputWarning, ...]:
        suffix = split_suffix(self._path)[1].lower()
        if suffix == (".nii" if self._compressed else ".nii.gz"):
            how = "compressed" if self._compressed else "not compressed"
            return (InputWarning("W_EXT_MISMATCH", f"the file is named {suffix} but is {how}; it is read anyway"),)
        return ()
