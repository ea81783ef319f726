"""From a stream to an array, a few slabs at a time, in whatever order the array's axes run."""

import numpy as np
import numpy.typing as npt

from cascade_rt.scans.nifti.conversion import HuConversion, LabelConversion
from cascade_rt.scans.nifti.stream import NiftiStream

_BLOCK_BYTES = 4 << 20


class BlockReader:
    """Fills an array with the voxels of a stream, in steps along the file's slowest axis.

    Where the stored bytes are those wanted and lie in the array as in the file, they are read to their place; elsewhere
    they go through one block of scratch memory. No copy of the whole volume is ever made.
    """

    def __init__(
        self,
        stream: NiftiStream,
        wanted: npt.NDArray[np.int16] | npt.NDArray[np.uint8],
        conversion: HuConversion | LabelConversion,
    ) -> None:
        """`wanted` is `[i, j, k]`, the axes of the file, a view with any strides."""
        self._stream, self._wanted, self._conversion = stream, wanted, conversion
        self._slab_bytes = wanted.shape[0] * wanted.shape[1] * stream.header.dtype.itemsize
        self._thickness = min(wanted.shape[2], max(1, _BLOCK_BYTES // self._slab_bytes))
        self._direct = conversion.direct and wanted.T.flags.c_contiguous
        self._scratch = np.empty(0 if self._direct else self._thickness * self._slab_bytes, dtype=np.uint8)
        self._slabs_read = 0

    def read_until(self, stop: int) -> None:
        """Read on until the slabs `[..., 0:stop]` are there."""
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
