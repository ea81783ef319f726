"""The bytes of a mask, the same in every format: its voxels in small blocks, compressed or not."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

GZIP_BITS, ZLIB_BITS = 31, 15
# For masks, a higher level costs more time than the saved kilobytes are worth.
_COMPRESSION = 1
_BLOCK_BYTES = 4 << 20

Content = Iterator[bytes | memoryview]


def voxel_bytes(slabs: npt.NDArray[np.uint8]) -> Content:
    """Yield the voxels of a mask `[k, j, i]` in small blocks, so that the mask is never copied whole."""
    thickness = max(1, _BLOCK_BYTES // (slabs.shape[1] * slabs.shape[2]))
    for first in range(0, len(slabs), thickness):
        yield np.ascontiguousarray(slabs[first : first + thickness]).data.cast("B")


def number(value: float) -> str:
    """Return the shortest text that is read back as exactly this number."""
    # Adding 0 turns -0 into 0.
    return repr(float(value) + 0.0).removesuffix(".0")


def compressed(content: Content, bits: int) -> Iterator[bytes]:
    """Compress with gzip or zlib, without file name and with mtime 0, so that the bytes depend on the mask alone."""
    stream = isal_zlib.compressobj(_COMPRESSION, isal_zlib.DEFLATED, bits)
    for part in content:
        yield stream.compress(part)
    yield stream.flush()
