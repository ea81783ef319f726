"""How the salient image of stage 1 gets to stage 2, in crops: the seam for engines that share a device."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from cascade_rt.engines.base import Array, StageEngine
from cascade_rt.errors import EngineError
from cascade_rt.models.crop import Box, Patch, crop

MASK_THRESHOLD = 0.5
"""A voxel belongs to a label where its probability is at least this; boxes have a threshold of their own."""
ROUNDING = 1e-3
"""How far a sigmoid of low precision may be off at its ends."""
_REMEDY = "run it with `backend=pytorch` to tell a bad model from a bad engine"


class StageBridge(Protocol[Patch]):
    """Runs both stages for one scan, and holds what passes between them."""

    def find_organ(self, hu: Array, *, masks: bool = False) -> Mapping[str, Array]:
        """Run stage 1, and keep its salient images, for `crop`, until the next call.

        Args:
            hu: Slices `[slice, 1, row, col]`, HU, in a shape that the stage takes.
            masks: The mask of the organ will do in place of its probabilities.

        Returns:
            The outputs of stage 1; `salient` only where it is on the host anyway. With `masks`, `organ_prob` may be
            bool: whether the probability is at least `MASK_THRESHOLD`.

        Raises:
            EngineError: One of these outputs is not a number.
        """
        ...

    def crop(self, index: int, image_shape: tuple[int, int], box: Box) -> Patch:
        """Cut a crop out of a salient image.

        Args:
            index: Which of the slices that `find_organ` had last.
            image_shape: The rows and columns of the slice before it was padded.
            box: What to cut; the crop is 0 where the box leaves the slice.
        """
        ...

    def find_tumor(self, crops: Sequence[Patch], *, masks: bool = False) -> Array:
        """Run stage 2 on crops of equal size, which are used up by it.

        Args:
            crops: The crops.
            masks: Masks of the tumor will do in place of its probabilities.

        Returns:
            Probabilities `[crop, 1, row, col]`, or with `masks` perhaps bool, as of `find_organ`.

        Raises:
            EngineError: A probability is not a number.
        """
        ...

    def close(self) -> None:
        """Free what passes between the stages; the engines stay open."""
        ...


class HostBridge:
    """Crops with numpy: right for any two engines."""

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
    """Raise EngineError where an output of an engine is not a number, or a probability not one from 0 to 1."""
    for name, array in outputs.items():
        # Both pass on what is not a number, and need no array of answers as long as the output.
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise EngineError(
                f"{engine.stage} on {engine.info.backend} returned values that are not numbers in {name!r}; {_REMEDY}",
                code="E_NONFINITE_OUTPUT",
            )
        if name != "salient" and not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise not_a_probability(engine, name, f"probabilities from {low:g} to {high:g}")


def not_a_probability(engine: StageEngine, name: str, what: str) -> EngineError:
    """What is raised where an output of an engine cannot be a probability."""
    sentence = f"{engine.stage} on {engine.info.backend} returned {what} in {name!r}; {_REMEDY}"
    return EngineError(sentence, code="E_NOT_PROBABILITY")


def binarize(values: Array, out: Array | None = None) -> Array:
    """Whether each pixel belongs to the label, of what `StageBridge` returned.

    Args:
        values: Probabilities, or a mask in their place.
        out: Where to write the answer, bool; none: a new array, or the mask itself.
    """
    if values.dtype != np.bool_:
        answer: Array = np.greater_equal(values, MASK_THRESHOLD, out=out)
        return answer
    if out is None:
        return values
    np.copyto(out, values)
    return out
