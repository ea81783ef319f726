"""Read a stream into an array with any axis order, a few slabs at a time."""

import numpy as np
import numpy.typing as npt

from cascade_rt.scans.nifti.conversion import HuConversion, LabelConversion
from cascade_rt.scans.nifti.voxel_stream import VoxelStream

_BLOCK_BYTES = 4 << 20


class BlockReader:
    """Fills an array with the voxels of a stream, in steps along the file's slowest axis.

    If the stored bytes need no conversion and the array has the memory layout of the file, they are read directly into
    the array. Otherwise they pass through one block of scratch memory. The whole volume is never copied.
    """

    def __init__(
        self,
        stream: VoxelStream,
        wanted: npt.NDArray[np.int16] | npt.NDArray[np.uint8],
        conversion: HuConversion | LabelConversion,
    ) -> None:
        """Prepare to fill `wanted`, a view `[i, j, k]` (the file's axes) with any strides."""
        self._stream, self._wanted, self._conversion = stream, wanted, conversion
        self._slab_bytes = wanted.shape[0] * wanted.shape[1] * stream.header.dtype.itemsize
        self._thickness = min(wanted.shape[2], max(1, _BLOCK_BYTES // self._slab_bytes))
        self._direct = conversion.direct and wanted.T.flags.c_contiguous
        self._scratch = np.empty(0 if self._direct else self._thickness * self._slab_bytes, dtype=np.uint8)
        self._slabs_read = 0

    def read_until(self, stop: int) -> None:
        """Continue reading until the slabs `[..., 0:stop]` are filled."""
        while self._slabs_read < stop:
            first, last = self._slabs_read, min(self._slabs_read + self._thickness, self._wanted.shape[2])
            self._read_block(self._wanted[..., first:last])
            self._slabs_read = last

    def _read_block(self, wanted: npt.NDArray[np.int16] | npt.NDArray[np.uint8]) -> None:
        if self._direct:
            self._stream.read_into(wanted.T.data.cast("B"))
            self._conversion.observe(wanted)
            return
        scratch = self._scratch[: wanted.shape[2] * self._slab_bytes]
        self._stream.read_into(scratch.data)
        stored = scratch.view(self._stream.header.dtype).reshape(wanted.T.shape).T
        self._conversion.convert(stored, wanted)
