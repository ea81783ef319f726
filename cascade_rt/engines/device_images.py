"""Images in GPU memory between the two stages: how they are stored, cropped and passed to an engine.

All copies are enqueued on one stream, so that each sees what earlier copies have written. Not measured: nothing here
has run on a GPU yet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade_rt.models.crop import Box

_PIXEL = np.dtype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceImage:
    """A float32 image `[row, col]`, C-contiguous."""

    memory: Any
    """The pycuda allocation."""
    rows: int
    cols: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.rows * self.cols * _PIXEL.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class DeviceBatch:
    """One or more images of equal size, used in place of an array `[batch, 1, row, col]`."""

    images: tuple[DeviceImage, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the equivalent array."""
        return len(self.images), 1, self.images[0].rows, self.images[0].cols

    @property
    def ndim(self) -> int:
        """Number of axes of the equivalent array."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the equivalent array."""
        return _PIXEL

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> "DeviceBatch":
        return DeviceBatch(self.images[rows])

    def gather(self, cuda: Any, target: int, stream: Any) -> None:
        """Copy all images contiguously to a device address."""
        for number, image in enumerate(self.images):
            cuda.memcpy_dtod_async(target + number * image.nbytes, int(image.memory), image.nbytes, stream)

    def scatter(self, cuda: Any, source: int, stream: Any) -> None:
        """Fill all images from contiguous memory at a device address."""
        for number, image in enumerate(self.images):
            cuda.memcpy_dtod_async(int(image.memory), source + number * image.nbytes, image.nbytes, stream)


class DeviceImages:
    """A pool of images. `close` frees everything that was ever allocated.

    Allocation is slow and there are few sizes, so returned images are reused.
    """

    def __init__(self, cuda: Any, stream: Any) -> None:
        """Create an empty pool.

        Args:
            cuda: `pycuda.driver`. The GPU's context must be current whenever a method is called.
            stream: The stream for all copies.
        """
        self._cuda = cuda
        self._stream = stream
        self._allocated: list[Any] = []
        self._idle: dict[int, list[Any]] = {}

    def take(self, rows: int, cols: int) -> DeviceImage:
        """Return an image with uninitialized contents."""
        size = rows * cols * _PIXEL.itemsize
        idle = self._idle.setdefault(size, [])
        if not idle:
            self._allocated.append(self._cuda.mem_alloc(size))
            idle.append(self._allocated[-1])
        return DeviceImage(idle.pop(), rows, cols)

    def give_back(self, images: Iterable[DeviceImage]) -> None:
        """Return images to the pool that are not needed beyond the work already on the stream."""
        for image in images:
            self._idle[image.nbytes].append(image.memory)

    def crop(self, image: DeviceImage, image_shape: tuple[int, int], box: Box) -> DeviceImage:
        """Cut a box out of an image: the device counterpart of `cascade_rt.models.crop.crop`.

        Args:
            image: The image, possibly padded below and to the right.
            image_shape: Rows and columns of the image without padding.
            box: The box to cut. The result is 0 where the box extends beyond `image_shape`.
        """
        patch = self.take(*box.size)
        height, width = box.inside(image_shape)
        if (height, width) != box.size:
            self._cuda.memset_d32_async(int(patch.memory), 0, box.height * box.width, self._stream)
        copy = self._cuda.Memcpy2D()
        copy.set_src_device(int(image.memory))
        copy.src_y, copy.src_x_in_bytes = box.row, box.col * _PIXEL.itemsize
        copy.src_pitch = image.cols * _PIXEL.itemsize
        copy.set_dst_device(int(patch.memory))
        copy.dst_pitch = patch.cols * _PIXEL.itemsize
        copy.height, copy.width_in_bytes = height, width * _PIXEL.itemsize
        copy(self._stream)
        return patch

    def close(self) -> None:
        """Free all images, including those not returned. cuMemFree waits for work that still uses them."""
        self._stream = None
        self._idle.clear()
        while self._allocated:
            self._allocated.pop().free()
