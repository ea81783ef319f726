"""An engine without a network, for testing the code around engines, both here and in users of cascade-rt."""

from collections.abc import Callable, Mapping

import numpy as np

from cascade_rt.common.tensors import GPU_BATCH, Stage
from cascade_rt.engines.base import Array, EngineInfo, check_inputs, check_open

Compute = Callable[[Mapping[str, Array]], dict[str, Array]]


class FakeEngine:
    """Runs a stage with a function instead of a network, fulfilling the contract of `StageEngine`."""

    def __init__(self, stage: Stage, compute: Compute) -> None:
        self.stage = stage
        self.info = EngineInfo("fake", "fp32", "cpu", "1")
        self.preferred_batch = GPU_BATCH[stage]
        self._compute: Compute | None = compute

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`)."""
        check_inputs(self.stage, inputs)
        check_open(self._compute, self.stage)
        return self._compute(inputs)  # type: ignore[misc]

    def close(self) -> None:
        """Drop the function."""
        self._compute = None


def organ_by_hu(lowest_hu: float, window_hu: tuple[float, float]) -> FakeEngine:
    """Return a stage 1 that labels every pixel of at least `lowest_hu` as organ.

    Its salient image is the input, windowed to `window_hu` and scaled to 0 to 1.
    """

    def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
        hu = inputs["hu"]
        low, high = window_hu
        prob = (hu >= lowest_hu).astype(np.float32)
        salient = np.clip((hu - low) / (high - low), 0, 1).astype(np.float32)
        return {
            "organ_prob": prob,
            "row_max": prob.max(axis=(1, 3)),
            "col_max": prob.max(axis=(1, 2)),
            "salient": salient,
        }

    return FakeEngine("stage1", compute)


def tumor_by_salient(lowest: float) -> FakeEngine:
    """Return a stage 2 that labels every pixel of the salient crop of at least `lowest` as tumor."""
    return FakeEngine("stage2", lambda inputs: {"tumor_prob": (inputs["salient"] >= lowest).astype(np.float32)})
