"""Crops that are cut on the GPU are those that numpy cuts; on the emulated GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.engines.cuda_context import releaser
from cascade_rt.engines.device_images import DeviceBatch, DeviceImage, DeviceImages
from cascade_rt.models.crop import Box, crop
from tests.cuda_emulator.driver import Emulator

pytestmark = pytest.mark.gpu


class Device:
    """A GPU with images on it, in whose context the test is."""

    def __init__(self) -> None:
        import pycuda.driver

        self.cuda: ModuleType = pycuda.driver
        self.stream = self.cuda.Stream()
        self.images = DeviceImages(self.cuda, self.stream)

    def put(self, pixels: np.ndarray) -> DeviceImage:
        image = self.images.take(*pixels.shape)
        self.cuda.memcpy_htod(int(image.memory), np.ascontiguousarray(pixels))
        return image

    def read(self, image: DeviceImage) -> np.ndarray:
        self.stream.synchronize()
        pixels = np.empty((image.rows, image.cols), np.float32)
        self.cuda.memcpy_dtoh(pixels, int(image.memory))
        return pixels


@contextmanager
def a_device() -> Iterator[Device]:
    import pycuda.driver as cuda

    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    release = releaser(cuda, context)
    context.push()
    device = Device()
    stream = device.stream
    yield device
    device.images.close()
    del device.stream, stream
    cuda.Context.pop()
    release()


@pytest.fixture
def device() -> Iterator[Device]:
    with a_device() as device:
        yield device


def pixels(rows: int, cols: int) -> np.ndarray:
    return 1 + np.arange(rows * cols, dtype=np.float32).reshape(rows, cols)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], Box]:
    """The shape of a padded image, the part of it that counts, and a box that begins in there."""
    rows, cols = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    padded = rows + draw(st.integers(0, 15)), cols + draw(st.integers(0, 15))
    corner = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    return padded, (rows, cols), Box(*corner, draw(st.integers(1, 60)), draw(st.integers(1, 60)))


@given(boxes())
def test_a_crop_on_the_gpu_is_the_crop_on_the_host(
    case: tuple[tuple[int, int], tuple[int, int], Box],
) -> None:
    padded, (rows, cols), box = case
    image = pixels(*padded)
    with a_device() as device:
        patch = device.images.crop(device.put(image), (rows, cols), box)
        np.testing.assert_array_equal(device.read(patch), crop(image[:rows, :cols], box))


def test_a_crop_has_nothing_of_what_its_memory_held_before(device: Device) -> None:
    device.images.give_back([device.put(np.full((8, 8), np.nan, np.float32))])
    patch = device.images.crop(device.put(pixels(4, 4)), (4, 4), Box(2, 2, 8, 8))
    np.testing.assert_array_equal(device.read(patch), crop(pixels(4, 4), Box(2, 2, 8, 8)))


def test_images_that_were_given_back_are_used_again(device: Device) -> None:
    first = device.images.take(8, 8)
    device.images.give_back([first])
    assert device.images.take(8, 8).memory is first.memory


def test_images_in_use_have_memory_of_their_own(device: Device) -> None:
    assert len({int(device.images.take(8, 8).memory) for _ in range(3)}) == 3


def test_closing_frees_images_that_were_not_given_back(emulator: Emulator, device: Device) -> None:
    device.images.give_back([device.images.take(8, 8)])
    device.images.take(8, 8)
    device.images.take(4, 4)
    device.images.close()
    assert emulator.since("blocks") == 0


def test_a_batch_goes_into_one_piece_of_memory_and_comes_out_of_one(device: Device) -> None:
    source = DeviceBatch(tuple(device.put(number * pixels(3, 5)) for number in (1, 2, 3)))
    target = DeviceBatch(tuple(device.images.take(3, 5) for _ in range(3)))
    block = device.put(np.zeros((9, 5), np.float32))
    source.gather(device.cuda, int(block.memory), device.stream)
    target.scatter(device.cuda, int(block.memory), device.stream)
    for number, image in enumerate(target.images, start=1):
        np.testing.assert_array_equal(device.read(image), number * pixels(3, 5))


def test_part_of_a_batch_has_the_shape_of_its_images(device: Device) -> None:
    batch = DeviceBatch(tuple(device.images.take(3, 5) for _ in range(4)))
    assert (len(batch), batch.shape, batch[1:3].shape) == (4, (4, 1, 3, 5), (2, 1, 3, 5))
