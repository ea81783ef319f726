"""TensorRT: run a stage with a plan built for the GPU of this machine.

Not measured: this module has not run on a GPU yet.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.packages import backend_named, import_package
from cascade_rt.common.shown_paths import hide_folders
from cascade_rt.common.tensors import GPU_BATCH, STAGE_SPECS, Precision, Stage
from cascade_rt.engines.base import PRECISION_DOUBT, Array, EngineInfo, check_inputs, check_open, check_outputs
from cascade_rt.engines.device_images import DeviceBatch
from cascade_rt.engines.nvidia import Gpu, require_gpu
from cascade_rt.engines.plans import Plan, PlanSource
from cascade_rt.engines.tensorrt_session import TensorRtSession
from cascade_rt.errors import BackendUnavailableError


class TensorRtEngine:
    """Runs a stage with TensorRT, in the precision that its plan was built with.

    Batches larger than the engine was built for are split, for images of unusual size into single images. Sizes that it
    was not built for raise an error that states the allowed ranges.
    """

    def __init__(self, plan: Plan, stage: Stage, gpu: Gpu) -> None:
        self.stage = stage
        session = TensorRtSession(plan.data, device=gpu.index)
        try:
            _check_names(session, stage)
        except BackendUnavailableError:
            session.close()
            raise
        self._session: TensorRtSession | None = session
        settings = {"cuda_graphs": "on" if session.records_graphs else "off, cuda-bindings is not installed"}
        if plan.doubt:
            settings[PRECISION_DOUBT] = hide_folders(plan.doubt, ())
        self.info = EngineInfo("tensorrt", plan.precision, str(gpu), session.version, settings)
        self.preferred_batch = GPU_BATCH[stage]

    @classmethod
    def of_bundle(cls, bundle: Bundle, stage: Stage, precision: Precision, plans: PlanSource, device: int = 0) -> Self:
        """Open a stage of a bundle on one GPU. The plan source is called only if TensorRT could run a plan.

        Raises:
            BackendUnavailableError: There is no GPU or no plan, a package is missing, or TensorRT rejects the plan.
            UsageError: No GPU has this number.
        """
        gpu = require_gpu("tensorrt", device)
        for package in ("tensorrt", "pycuda.driver"):
            import_package(package, needed_by=backend_named("tensorrt"), extra="tensorrt")
        return cls(plans(bundle, stage, precision, device), stage, gpu)

    @property
    def session(self) -> TensorRtSession:
        """The underlying session. Raises RuntimeError after `close`."""
        check_open(self._session, self.stage)
        return self._session  # type: ignore[return-value]

    @property
    def device_seconds(self) -> float:
        """GPU time of the last part of a batch in seconds, including copies."""
        return 0.0 if self._session is None else self._session.device_seconds

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`).

        Raises:
            OutsideProfileError: The engine was not built for this height or width.
            BackendUnavailableError: The GPU failed, or its memory is full.
            EngineError: TensorRT fails to run the engine.
        """
        return self.run_on_gpu(inputs, {})

    def run_on_gpu(
        self, inputs: Mapping[str, Array | DeviceBatch], kept: Mapping[str, DeviceBatch]
    ) -> dict[str, Array]:
        """Compute the stage's outputs, with inputs or outputs optionally in GPU memory.

        Args:
            inputs: Inputs by name, each on the host or on the GPU.
            kept: Destinations of the outputs that stay on the GPU, by name.

        Returns:
            All other outputs, on the host.

        Raises:
            The same errors as `run`.
        """
        check_inputs(self.stage, inputs)
        session = self.session
        largest = session.largest_batch({name: array.shape for name, array in inputs.items()})
        parts = [
            session.run(
                {name: array[rows] for name, array in inputs.items()},
                {name: images[rows] for name, images in kept.items()},
            )
            for rows in batch_parts(len(next(iter(inputs.values()))), largest)
        ]
        names = [spec.name for spec in STAGE_SPECS[self.stage].outputs if spec.name not in kept]
        outputs = {name: _joined([part[name] for part in parts]) for name in names}
        check_outputs("the TensorRT engine", self.stage, inputs, outputs)
        return outputs

    def forget_shapes(self) -> None:
        """Free the GPU memory that is kept for image sizes seen so far."""
        self.session.forget_shapes()

    def close(self) -> None:
        """Free all GPU memory."""
        if self._session is not None:
            self._session.close()
        self._session = None


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def batch_parts(count: int, largest: int) -> list[slice]:
    """Split a batch of `count` rows into parts of at most `largest` rows, in order."""
    return [slice(first, first + largest) for first in range(0, count, largest)]


def _check_names(session: TensorRtSession, stage: Stage) -> None:
    """Raise BackendUnavailableError if the tensor names, in any order, are not those of the stage."""
    spec = STAGE_SPECS[stage]
    found = (sorted(session.inputs), sorted(session.outputs))
    if found != (sorted(each.name for each in spec.inputs), sorted(each.name for each in spec.outputs)):
        raise BackendUnavailableError(
            f"the TensorRT engine is not for {stage}, its tensors are {found}; build it again"
        )
