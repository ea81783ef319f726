"""ONNX Runtime on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cascade_rt.bundle import Bundle
from cascade_rt.engines.base import Array, EngineInfo, check_inputs, check_open
from cascade_rt.engines.packages import import_package
from cascade_rt.errors import BundleError
from cascade_rt.processors import available_cpus
from cascade_rt.tensors import STAGE_SPECS, Precision, Stage


class OnnxRuntimeEngine:
    """Runs the ONNX graph of a stage with the CPU execution provider.

    In half precision it is for looking at masks, not for speed: few operators have a kernel, so most compute in float32
    and leave roundings out that a GPU makes (docs/decisions/0011).
    """

    def __init__(self, bundle: Bundle, stage: Stage, precision: Precision = "fp32") -> None:
        onnxruntime = import_package("onnxruntime", backend="onnxruntime", extra="cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cpus()
        options.log_severity_level = 3
        self._stage = stage
        self._output_names = [spec.name for spec in STAGE_SPECS[stage].outputs]
        path = bundle.graph(stage, precision)
        errors = onnxruntime.capi.onnxruntime_pybind11_state
        try:
            session = onnxruntime.InferenceSession(
                path.read_bytes(), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except (errors.InvalidProtobuf, errors.InvalidGraph, errors.Fail, errors.NotImplemented) as error:
            raise BundleError(f"{path}: ONNX Runtime cannot read the graph; export the bundle again") from error
        _check_names(session, stage, path)
        self._session = session
        self._info = EngineInfo("onnxruntime", precision, "cpu", onnxruntime.__version__)

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


def _check_names(session: Any, stage: Stage, path: Path) -> None:
    """Raise BundleError where a graph is not one of this stage."""
    spec = STAGE_SPECS[stage]
    for found, expected in ((session.get_inputs(), spec.inputs), (session.get_outputs(), spec.outputs)):
        names = [tensor.name for tensor in found]
        if names != [tensor.name for tensor in expected]:
            raise BundleError(f"{path}: is not a graph of {stage}, its tensors are {names}; export the bundle again")
