"""Pass crops of the salient image from stage 1 to stage 2. The interface lets engines share device memory."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from cascade_rt.engines.base import Array, StageEngine
from cascade_rt.errors import EngineError
from cascade_rt.models.crop import Box, Patch, crop

MASK_THRESHOLD = 0.5
"""A voxel belongs to a label if its probability is at least this value. Boxes use a different threshold."""
ROUNDING = 1e-3
"""How far a low-precision sigmoid may stray outside 0 to 1."""
_REMEDY = "run it with `backend=pytorch` to tell a bad model from a bad engine"


class StageBridge(Protocol[Patch]):
    """Runs both stages for one scan, and holds the data passed between them."""

    def find_organ(self, hu: Array, *, masks: bool = False) -> Mapping[str, Array]:
        """Run stage 1, and keep its salient images for `crop` until the next call.

        Args:
            hu: Slices `[slice, 1, row, col]` in HU, in a shape that the stage accepts.
            masks: Whether a mask of the organ may be returned instead of its probabilities.

        Returns:
            The outputs of stage 1, with `salient` only if it is on the host anyway. With `masks`, `organ_prob` may be
            bool: whether the probability is at least `MASK_THRESHOLD`.

        Raises:
            EngineError: One of these outputs contains NaN or infinity, or an invalid probability.
        """
        ...

    def crop(self, index: int, image_shape: tuple[int, int], box: Box) -> Patch:
        """Cut a crop out of a salient image.

        Args:
            index: Index of the slice in the last call of `find_organ`.
            image_shape: Rows and columns of the slice before padding.
            box: The box to cut. The crop is 0 where the box extends beyond the slice.
        """
        ...

    def find_tumor(self, crops: Sequence[Patch], *, masks: bool = False) -> Array:
        """Run stage 2 on crops of equal size. The crops must not be used afterwards.

        Args:
            crops: The crops.
            masks: Whether masks of the tumor may be returned instead of its probabilities.

        Returns:
            Probabilities `[crop, 1, row, col]`. With `masks` they may be bool, see `find_organ`.

        Raises:
            EngineError: A probability is NaN or otherwise invalid.
        """
        ...

    def close(self) -> None:
        """Free the data passed between the stages. The engines stay open."""
        ...


class HostBridge:
    """Crops with NumPy on the host. Works with any two engines."""

    def __init__(self, stage1: StageEngine, stage2: StageEngine) -> None:
        self._stage1 = stage1
        self._stage2 = stage2
        self._salient: Array = np.empty((0, 1, 0, 0), dtype=np.float32)

    def find_organ(self, hu: Array, *, masks: bool = False) -> Mapping[str, Array]:  # noqa: ARG002  nothing is saved
        """Run stage 1 (see `StageBridge`)."""
        organ = self._stage1.run({"hu": hu})
        check_finite(self._stage1, organ)
        self._salient = organ["salient"]
        return organ

    def crop(self, index: int, image_shape: tuple[int, int], box: Box) -> Array:
        """Cut a crop `[1, row, col]` (see `StageBridge`)."""
        rows, cols = image_shape
        return crop(self._salient[index, :, :rows, :cols], box)

    def find_tumor(self, crops: Sequence[Array], *, masks: bool = False) -> Array:  # noqa: ARG002
        """Run stage 2 (see `StageBridge`)."""
        tumor = self._stage2.run({"salient": np.stack(crops)})
        check_finite(self._stage2, tumor)
        return tumor["tumor_prob"]

    def close(self) -> None:
        """Nothing to free."""


def check_finite(engine: StageEngine, outputs: Mapping[str, Array]) -> None:
    """Raise EngineError if an output contains NaN or infinity, or a probability outside 0 to 1."""
    for name, array in outputs.items():
        # min and max propagate NaN, and do not need a temporary array of the size of the output.
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise EngineError(
                f"{engine.stage} on {engine.info.backend} returned NaN or infinity in {name!r}; {_REMEDY}",
                code="E_NONFINITE_OUTPUT",
            )
        if name != "salient" and not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise not_a_probability(engine, name, f"probabilities from {low:g} to {high:g}")


def not_a_probability(engine: StageEngine, name: str, what: str) -> EngineError:
    """Return the error to raise if an output of an engine cannot be a probability."""
    sentence = f"{engine.stage} on {engine.info.backend} returned {what} in {name!r}; {_REMEDY}"
    return EngineError(sentence, code="E_NOT_PROBABILITY")


def binarize(values: Array, out: Array | None = None) -> Array:
    """Return whether each pixel belongs to the label, given the output of a `StageBridge`.

    Args:
        values: Probabilities, or a bool mask.
        out: Bool array to write the result to. If None, returns a new array, or `values` itself if it is a mask.
    """
    if values.dtype != np.bool_:
        answer: Array = np.greater_equal(values, MASK_THRESHOLD, out=out)
        return answer
    if out is None:
        return values
    np.copyto(out, values)
    return out
