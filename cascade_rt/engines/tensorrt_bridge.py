"""Two stages on TensorRT hand crops over within the GPU. Not measured: it has not run on a GPU yet."""

from collections.abc import Mapping, Sequence

import numpy as np

from cascade_rt.engines.base import Array
from cascade_rt.engines.device_images import DeviceBatch, DeviceImage, DeviceImages
from cascade_rt.engines.device_masks import NOT_A_PROBABILITY, DeviceMasks
from cascade_rt.engines.stage_bridge import check_finite, not_a_probability
from cascade_rt.engines.tensorrt_engine import TensorRtEngine
from cascade_rt.models.crop import Box


class DeviceBridge:
    """Keeps the salient image and its crops on the GPU, and the probabilities where masks will do.

    Only what is needed on the CPU crosses the bus: slices in, and out the maxima of the organ's probabilities and the
    masks, or the probabilities where somebody asks for them. A salient image that is not a number is not seen itself,
    only what stage 2 makes of it.
    """

    def __init__(self, stage1: TensorRtEngine, stage2: TensorRtEngine) -> None:
        self._stage1 = stage1
        self._stage2 = stage2
        self._gpu = stage1.session
        self._images = DeviceImages(self._gpu.cuda, self._gpu.stream)
        self._salient: tuple[DeviceImage, ...] = ()
        with self._gpu.on_gpu():
            self._masks = DeviceMasks(self._gpu.cuda, self._gpu.stream)

    def find_organ(self, hu: Array, *, masks: bool = False) -> Mapping[str, Array]:
        """Run stage 1 (see `StageBridge`)."""
        count, _, rows, cols = hu.shape
        with self._gpu.on_gpu():
            self._images.give_back(self._salient)
        self._salient = self._take(count, rows, cols)
        kept = {"salient": DeviceBatch(self._salient)}
        if not masks:
            organ = self._stage1.run_on_gpu({"hu": hu}, kept)
            check_finite(self._stage1, organ)
            return organ
        organ, mask = self._run_for_mask(self._stage1, "organ_prob", {"hu": hu}, kept, (count, rows, cols))
        check_finite(self._stage1, organ)
        return {**organ, "organ_prob": mask}

    def crop(self, index: int, image_shape: tuple[int, int], box: Box) -> DeviceImage:
        """Cut a crop `[row, col]` (see `StageBridge`)."""
        with self._gpu.on_gpu():
            return self._images.crop(self._salient[index], image_shape, box)

    def find_tumor(self, crops: Sequence[DeviceImage], *, masks: bool = False) -> Array:
        """Run stage 2 (see `StageBridge`)."""
        with self._gpu.on_gpu():
            # Crops are made on the stream of stage 1; stage 2 reads them on its own.
            self._gpu.stream.synchronize()
        inputs = {"salient": DeviceBatch(tuple(crops))}
        if masks:
            shape = len(crops), crops[0].rows, crops[0].cols
            _, mask = self._run_for_mask(self._stage2, "tumor_prob", inputs, {}, shape)
            self._images.give_back(crops)
            return mask
        tumor = self._stage2.run_on_gpu(inputs, {})
        self._images.give_back(crops)
        check_finite(self._stage2, tumor)
        return tumor["tumor_prob"]

    def close(self) -> None:
        """Free all that passes between the stages."""
        with self._gpu.on_gpu():
            self._images.close()
            self._masks.close()

    def _run_for_mask(
        self,
        engine: TensorRtEngine,
        name: str,
        inputs: Mapping[str, Array | DeviceBatch],
        kept: Mapping[str, DeviceBatch],
        shape: tuple[int, int, int],
    ) -> tuple[dict[str, Array], Array]:
        """Run an engine with its probabilities, of a shape `[image, row, col]`, left on the GPU.

        Returns:
            The other outputs that are not kept, and the mask `[image, 1, row, col]`, bool.
        """
        probs = self._take(*shape)
        outputs = engine.run_on_gpu(inputs, {**kept, name: DeviceBatch(probs)})
        with self._gpu.on_gpu():
            mask = self._masks.read(probs)
            self._images.give_back(probs)
        if mask.max() == NOT_A_PROBABILITY:
            raise not_a_probability(engine, name, "values that are no probabilities")
        return outputs, mask.astype(np.bool_)

    def _take(self, count: int, rows: int, cols: int) -> tuple[DeviceImage, ...]:
        with self._gpu.on_gpu():
            return tuple(self._images.take(rows, cols) for _ in range(count))
