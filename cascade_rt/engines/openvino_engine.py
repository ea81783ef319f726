"""OpenVINO, the fastest engine on the CPU: in float32, and in bfloat16 if the processor supports it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import CPU_BATCH, STAGE_SPECS, Stage
from cascade_rt.engines.base import Array, EngineInfo, check_inputs, check_open, check_outputs
from cascade_rt.engines.openvino_session import (
    OpenVinoPrecision,
    Part,
    first_convolutions,
    import_openvino,
    named_failures,
    open_parts,
)
from cascade_rt.engines.streams import share_out, streams_here


def parts_of(graph: bytes, what: str, stage: Stage, precision: OpenVinoPrecision) -> list[Part]:
    """Return the parts of a stage, each computed in a single precision.

    In bfloat16 mode two things stay in float32, because losing precision to its 8 bits there costs more tumor voxels
    than everywhere else together: in stage 1 the computation of the salient image, in stage 2 the convolutions that
    read it.

    Raises:
        The same errors as `open_parts`.
    """
    spec = STAGE_SPECS[stage]
    inputs, outputs = (tuple(tensor.name for tensor in tensors) for tensors in (spec.inputs, spec.outputs))
    if precision == "fp32":
        return [Part(inputs, outputs, precision)]
    if stage == "stage1":
        found = tuple(name for name in outputs if name != "salient")
        return [Part(inputs, found, precision), Part((*inputs, "organ_prob"), ("salient",), "fp32")]
    read = first_convolutions(graph, what)
    rest = Part((*inputs, *read), outputs, precision)
    return [Part(inputs, read, "fp32"), rest] if read else [rest]


class OpenVinoEngine:
    """Runs the float32 graph of a stage, compiled once for all sizes (docs/decisions/0015)."""

    def __init__(self, bundle: Bundle, stage: Stage, precision: OpenVinoPrecision = "fp32") -> None:
        path = bundle.graph(stage, "fp32")
        self.stage = stage
        graph, what = path.read_bytes(), str(path)
        self._graph = what
        self._parts = parts_of(graph, what, stage, precision)
        # In float32, parallel streams made a whole scan no faster and took 240 MB more (docs/decisions/0015).
        self._streams = streams_here() if precision == "bf16" else 1
        models = open_parts(graph, what, self._parts, self._streams)
        with named_failures(what, "run the graph"):
            self._requests: list[list[Any]] | None = [
                [model.create_infer_request() for _ in range(self._streams)] for model in models
            ]
        version = import_openvino().__version__.partition("-")[0]
        threads = str(models[0].get_property("INFERENCE_NUM_THREADS"))
        settings = {"threads": threads, "streams": str(self._streams)}
        self.info = EngineInfo("openvino", precision, "cpu", version, settings)
        self.preferred_batch = CPU_BATCH[stage] * self._streams

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`).

        Raises:
            EngineOutOfMemoryError: Memory ran out.
            BundleError: The graph does not run on these inputs, or returns outputs of a wrong type or shape.
        """
        check_inputs(self.stage, inputs)
        check_open(self._requests, self.stage)
        tensors = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        rows = share_out(len(next(iter(tensors.values()))), self._streams)
        with named_failures(self._graph, "run the graph"):
            for part, requests in zip(self._parts, self._requests, strict=True):  # type: ignore[arg-type]
                # Inputs and outputs are copied, so that the buffers OpenVINO reuses in its next run are not shared.
                busy = requests[: len(rows)]
                _run_side_by_side(busy, [{name: tensors[name][chosen] for name in part.inputs} for chosen in rows])
                for name in part.outputs:
                    tensors[name] = _joined([request.get_tensor(name).data for request in busy])
        outputs = {spec.name: tensors[spec.name] for spec in STAGE_SPECS[self.stage].outputs}
        check_outputs(self._graph, self.stage, inputs, outputs)
        return outputs

    def close(self) -> None:
        """Free the compiled models."""
        self._requests = None


def _joined(parts: Sequence[Array]) -> Array:
    """Return a copy of the rows of all parts, concatenated."""
    return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)


def _run_side_by_side(requests: Sequence[Any], inputs: Sequence[Mapping[str, Array]]) -> None:
    """Run all requests in parallel, each on its own inputs. No request is still running on return or raise."""
    with ExitStack() as ends:
        for request, tensors in zip(requests, inputs, strict=True):
            request.start_async(tensors)
            ends.callback(request.wait)
