"""Pass crops between two TensorRT stages within GPU memory. Not measured: this module has not run on a GPU yet."""

from collections.abc import Mapping, Sequence

import numpy as np

from cascade_rt.engines.base import Array
from cascade_rt.engines.device_images import DeviceBatch, DeviceImage, DeviceImages
from cascade_rt.engines.device_masks import NOT_A_PROBABILITY, DeviceMasks
from cascade_rt.engines.stage_bridge import check_finite, not_a_probability
from cascade_rt.engines.tensorrt_engine import TensorRtEngine
from cascade_rt.models.crop import Box


class DeviceBridge:
    """Keeps the salient image and its crops on the GPU, and also the probabilities if masks suffice.

    Only the data needed on the CPU crosses the bus: slices in one direction, and in the other the maxima of the organ
    probabilities and the masks, or the probabilities if requested. NaN in a salient image is not detected there, only
    in the outputs that stage 2 computes from it.
    """

    def __init__(self, stage1: TensorRtEngine, stage2: TensorRtEngine) -> None:
        self._stage1 = stage1
        self._stage2 = stage2
        self._gpu = stage1.session
        self._images = DeviceImages(self._gpu.cuda, self._gpu.stream)
        self._salient: tuple[DeviceImage, ...] = ()
        self._masks = DeviceMasks(self._gpu.cuda, self._gpu.stream, self._gpu.mask_kernel())

    def find_organ(self, hu: Array, *, masks: bool = False) -> Mapping[str, Array]:
        """Run stage 1 (see `StageBridge`)."""
        count, _, rows, cols = hu.shape
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
        return self._gpu.with_room(lambda: self._images.crop(self._salient[index], image_shape, box))

    def find_tumor(self, crops: Sequence[DeviceImage], *, masks: bool = False) -> Array:
        """Run stage 2 (see `StageBridge`)."""
        with self._gpu.on_gpu():
            # Crops are made on the stream of stage 1, but stage 2 reads them on its own stream.
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
        """Free all data passed between the stages."""
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
        """Run an engine, leave its probabilities on the GPU and binarize them there.

        Args:
            engine: The engine to run.
            name: Name of the output with the probabilities.
            inputs: Inputs by name.
            kept: Destinations of other outputs that stay on the GPU.
            shape: Shape of the probabilities, `[image, row, col]`.

        Returns:
            The outputs copied to the host, without the probabilities, and the mask `[image, 1, row, col]`, bool.
        """
        probs = self._take(*shape)
        outputs = engine.run_on_gpu(inputs, {**kept, name: DeviceBatch(probs)})
        mask = self._gpu.with_room(lambda: self._masks.read(probs))
        self._images.give_back(probs)
        if mask.max() == NOT_A_PROBABILITY:
            raise not_a_probability(engine, name, "values that are not probabilities")
        return outputs, mask.astype(np.bool_)

    def _take(self, count: int, rows: int, cols: int) -> tuple[DeviceImage, ...]:
        return tuple(self._gpu.with_room(lambda: self._images.take(rows, cols)) for _ in range(count))
