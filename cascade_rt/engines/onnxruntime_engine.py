"""ONNX Runtime, on the CPU and on an NVIDIA GPU."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.bundles.files import BundleFile
from cascade_rt.common.processors import available_cpus
from cascade_rt.common.tensors import CPU_BATCH, GPU_BATCH, STAGE_SPECS, Precision, Stage
from cascade_rt.engines.base import Array, EngineInfo, check_inputs, check_open, check_outputs
from cascade_rt.engines.nvidia import require_gpu
from cascade_rt.engines.onnxruntime_session import (
    CUDA,
    CUDA_FOR_HALF,
    Provider,
    library_errors,
    open_cpu_session,
    open_gpu_session,
    run_bound,
)
from cascade_rt.engines.out_of_memory import named_out_of_memory
from cascade_rt.engines.streams import share_out, streams_here
from cascade_rt.errors import BackendUnavailableError, BundleError

_LONGEST_NAMES = 200
"""Maximum number of characters of tensor names shown in an error message."""


class OnnxRuntimeEngine:
    """Runs the ONNX graph of a stage with the CPU execution provider.

    Half precision is meant for inspecting masks, not for speed. Few operators have a half-precision kernel, so most
    compute in float32 and skip roundings that a GPU would make (docs/decisions/0011).
    """

    def __init__(self, bundle: Bundle, stage: Stage, precision: Precision = "fp32") -> None:
        path = bundle.graph(stage, precision)
        self.stage = stage
        self._graph = str(path)
        self._output_names = [spec.name for spec in STAGE_SPECS[stage].outputs]
        cpus, self._streams = available_cpus(), streams_here()
        self._session: Any = open_cpu_session(path.read_bytes(), self._graph, cpus // self._streams)
        _check_names(self._session, stage, path)
        self._pool = ThreadPoolExecutor(self._streams)
        settings = {"threads": str(cpus), "streams": str(self._streams)}
        self.info = EngineInfo("onnxruntime", precision, "cpu", _version(), settings)
        self.preferred_batch = CPU_BATCH[stage] * self._streams

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`).

        Raises:
            EngineOutOfMemoryError: Memory ran out.
            BundleError: The graph does not run on these inputs, or returns outputs of a wrong type or shape.
        """
        check_inputs(self.stage, inputs)
        check_open(self._session, self.stage)
        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}

        def run_rows(rows: slice) -> list[Array]:
            outputs: list[Array] = self._session.run(self._output_names, {name: feeds[name][rows] for name in feeds})
            return outputs

        shares = share_out(len(next(iter(feeds.values()))), self._streams)
        refusals = library_errors()
        try:
            with named_out_of_memory(self.stage, "onnxruntime", *refusals):
                parts = [run_rows(shares[0])] if len(shares) == 1 else list(self._pool.map(run_rows, shares))
        except refusals as error:
            raise BundleError(f"{self._graph}: ONNX Runtime cannot run the graph; export the bundle again") from error
        for rows, part in zip(shares, parts, strict=True):
            self._check(part, {name: array[rows] for name, array in feeds.items()})
        outputs = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        return dict(zip(self._output_names, outputs, strict=True))

    def _check(self, outputs: list[Array], inputs: Mapping[str, Array]) -> None:
        check_outputs(self._graph, self.stage, inputs, dict(zip(self._output_names, outputs, strict=True)))

    def close(self) -> None:
        """Free the session."""
        self._session = None
        self._pool.shutdown()


class OnnxRuntimeGpuEngine:
    """Runs the ONNX graph of a stage on an NVIDIA GPU, or fails. There is no fallback to the CPU.

    Not measured: this class has not run on a GPU yet.
    """

    def __init__(
        self,
        bundle: Bundle,
        stage: Stage,
        precision: Precision = "fp32",
        provider: Provider = CUDA,
        *,
        device: int = 0,
    ) -> None:
        backend = "onnxruntime-cuda"
        gpu = require_gpu(backend, device)
        provider = provider.on_device(device)
        if provider.name == CUDA.name and precision == "fp16":
            provider = replace(provider, options={**provider.options, **CUDA_FOR_HALF})
        path = bundle.graph(stage, precision)
        self.stage = stage
        self._output_names = [spec.name for spec in STAGE_SPECS[stage].outputs]
        self._graph = str(path)
        self._session: Any = open_gpu_session(path.read_bytes(), self._graph, provider, backend)
        _check_names(self._session, stage, path)
        settings = {"provider": provider.name, **provider.options}
        self.info = EngineInfo(backend, precision, str(gpu), _version(), settings)
        self._device = device
        self.preferred_batch = GPU_BATCH[stage]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`).

        Raises:
            EngineOutOfMemoryError: Memory ran out.
            BackendUnavailableError: The GPU failed.
        """
        check_inputs(self.stage, inputs)
        check_open(self._session, self.stage)
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        feeds = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        failures = (errors.Fail, errors.EPFail, errors.RuntimeException, RuntimeError)
        try:
            with named_out_of_memory(self.stage, self.info.backend, *failures):
                outputs = run_bound(self._session, feeds, self._output_names, "cuda", self._device)
        except failures as error:
            reason = str(error).partition("\n")[0]
            raise BackendUnavailableError(
                f"{self.stage} failed on {self.info.device} ({reason}); free its memory, or use `backend=onnxruntime`"
            ) from error
        named = dict(zip(self._output_names, outputs, strict=True))
        check_outputs(self._graph, self.stage, inputs, named)
        return named

    def close(self) -> None:
        """Free the session and its GPU memory."""
        self._session = None


def _version() -> str:
    import onnxruntime

    version: str = onnxruntime.__version__
    return version


def _check_names(session: Any, stage: Stage, path: BundleFile) -> None:
    """Raise BundleError if the tensor names of a graph are not those of the stage."""
    spec = STAGE_SPECS[stage]
    for found, expected in ((session.get_inputs(), spec.inputs), (session.get_outputs(), spec.outputs)):
        names = [tensor.name for tensor in found]
        if names != [tensor.name for tensor in expected]:
            shown = ascii(names)[:_LONGEST_NAMES]
            raise BundleError(f"{path}: is not a {stage} graph, its tensors are {shown}; export the bundle again")
