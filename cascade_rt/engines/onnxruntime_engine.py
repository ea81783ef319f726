"""ONNX Runtime on the CPU."""

import os
from collections.abc import Mapping

import numpy as np

from cascade_rt.bundle import Bundle
from cascade_rt.engines.base import Array, EngineInfo, check_inputs, check_open
from cascade_rt.engines.packages import import_package
from cascade_rt.tensors import STAGE_SPECS, Stage


class OnnxRuntimeEngine:
    """Runs the ONNX graph of a stage with the CPU execution provider."""

    def __init__(self, bundle: Bundle, stage: Stage) -> None:
        onnxruntime = import_package("onnxruntime", backend="onnxruntime", extra="cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cpus()
        options.log_severity_level = 3
        self._stage = stage
        self._output_names = [spec.name for spec in STAGE_SPECS[stage].outputs]
        self._session = onnxruntime.InferenceSession(
            bundle.graph(stage).read_bytes(), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._info = EngineInfo("onnxruntime", "fp32", "cpu", onnxruntime.__version__)

    @property
    def stage(self) -> Stage:
        """The stage it runs."""
        return self._stage

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        return self._info

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`)."""
        check_inputs(self._stage, inputs)
        check_open(self._session, self._stage)
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        return dict(zip(self._output_names, self._session.run(self._output_names, feeds), strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def available_cpus() -> int:
    """Processors this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
