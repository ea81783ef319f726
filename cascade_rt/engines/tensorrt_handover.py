"""Two stages on TensorRT hand crops over within the GPU. Not measured: it has not run on a GPU yet."""

from collections.abc import Mapping, Sequence

from cascade_rt.crop import Box
from cascade_rt.engines.base import Array
from cascade_rt.engines.device_images import DeviceBatch, DeviceImage, DeviceImages
from cascade_rt.engines.handover import check_finite
from cascade_rt.engines.tensorrt_engine import TensorRtEngine


class DeviceHandover:
    """Keeps the salient image and its crops on the GPU.

    Only what is needed on the CPU crosses the bus: slices in, and out the organ's probabilities with their maxima and
    the tumour's probabilities. A salient image that is not a number is not seen itself, only what stage 2 makes of it.
    """

    def __init__(self, stage1: TensorRtEngine, stage2: TensorRtEngine) -> None:
        self._stage1 = stage1
        self._stage2 = stage2
        self._gpu = stage1.session
        self._images = DeviceImages(self._gpu.cuda, self._gpu.stream)
        self._salient: tuple[DeviceImage, ...] = ()

    def find_organ(self, hu: Array) -> Mapping[str, Array]:
        """Run stage 1 (see `Handover`)."""
        count, _, rows, cols = hu.shape
        with self._gpu.on_gpu():
            self._images.give_back(self._salient)
            self._salient = tuple(self._images.take(rows, cols) for _ in range(count))
        organ = self._stage1.run_on_gpu({"hu": hu}, {"salient": DeviceBatch(self._salient)})
        check_finite(self._stage1, organ)
        return organ

    def crop(self, index: int, image_shape: tuple[int, int], box: Box) -> DeviceImage:
        """Cut a crop `[row, col]` (see `Handover`)."""
        with self._gpu.on_gpu():
            return self._images.crop(self._salient[index], image_shape, box)

    def find_tumor(self, crops: Sequence[DeviceImage]) -> Array:
        """Run stage 2 (see `Handover`)."""
        with self._gpu.on_gpu():
            # Crops are made on the stream of stage 1; stage 2 reads them on its own.
            self._gpu.stream.synchronize()
        tumor = self._stage2.run_on_gpu({"salient": DeviceBatch(tuple(crops))}, {})
        self._images.give_back(crops)
        check_finite(self._stage2, tumor)
        return tumor["tumor_prob"]

    def close(self) -> None:
        """Free the salient image and all crops."""
        with self._gpu.on_gpu():
            self._images.close()
