"""OpenVINO on the CPU: the fastest there, in float32, and in bfloat16 where the processor computes in it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cascade_rt.bundle import Bundle
from cascade_rt.engines.base import Array, EngineInfo, check_inputs, check_open
from cascade_rt.engines.openvino_session import OpenVinoPrecision, import_openvino, open_openvino_model
from cascade_rt.errors import BundleError
from cascade_rt.tensors import CPU_BATCH, STAGE_SPECS, Stage


class OpenVinoEngine:
    """Runs the float32 graph of a stage, compiled once for all sizes (docs/decisions/0015)."""

    def __init__(self, bundle: Bundle, stage: Stage, precision: OpenVinoPrecision = "fp32") -> None:
        path = bundle.graph(stage, "fp32")
        self._stage = stage
        model = open_openvino_model(path.read_bytes(), str(path), precision)
        spec = STAGE_SPECS[stage]
        for ports, tensors in ((model.inputs, spec.inputs), (model.outputs, spec.outputs)):
            names = [port.any_name for port in ports]
            if names != [tensor.name for tensor in tensors]:
                raise BundleError(
                    f"{path}: is not a graph of {stage}, its tensors are {names}; export the bundle again"
                )
        self._request: Any = model.create_infer_request()
        version = import_openvino().__version__.partition("-")[0]
        threads = str(model.get_property("INFERENCE_NUM_THREADS"))
        self._info = EngineInfo("openvino", precision, "cpu", version, {"threads": threads})

    @property
    def stage(self) -> Stage:
        """The stage it runs."""
        return self._stage

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        return self._info

    @property
    def preferred_batch(self) -> int:
        """How many images to give it at once."""
        return CPU_BATCH[self._stage]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`)."""
        check_inputs(self._stage, inputs)
        check_open(self._request, self._stage)
        # Both inputs and outputs are copied: what OpenVINO keeps for its next run is then nobody else's.
        outputs = self._request.infer({name: np.ascontiguousarray(array) for name, array in inputs.items()})
        return {spec.name: outputs[spec.name] for spec in STAGE_SPECS[self._stage].outputs}

    def close(self) -> None:
        """Free the compiled model."""
        self._request = None
