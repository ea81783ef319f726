"""OpenVINO models that compute on the CPU in the requested precision, without telemetry.

By default OpenVINO silently computes a float32 graph in bfloat16 if the processor supports it. This module always sets
the precision, and `convolution_shares` reads back what is really used.

By default OpenVINO also sends a telemetry event to its vendor each time it is imported, and writes an identifier into
the home folder. This module imports it without the telemetry package.
"""

import math
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from cascade_rt.common.packages import backend_named, import_package, pip_install
from cascade_rt.common.processors import available_cpus
from cascade_rt.engines.out_of_memory import named_out_of_memory
from cascade_rt.errors import BackendUnavailableError, BundleError, EngineBuildError

OpenVinoPrecision = Literal["fp32", "bf16"]
_HINTS: Mapping[OpenVinoPrecision, str] = {"fp32": "f32", "bf16": "bf16"}
_CONVOLUTIONS = ("Convolution", "Deconvolution")
_TELEMETRY = "openvino_telemetry"
# Ensures that threads create only one core, and that telemetry stays hidden for the whole of an import.
_once = threading.RLock()


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Raises:
        BackendUnavailableError: The package is not installed or cannot be loaded.
    """
    with _once, _telemetry_missing():
        return import_package("openvino", needed_by=backend_named("openvino"), extra="openvino")


def openvino_core() -> Any:
    """Return the only `openvino.Core` of this process, which is never freed.

    Each core installs a signal handler stack in the thread it compiles in, and removes it when the core and its models
    are freed. With two cores, the second then restores the stack of the first, which no longer exists, and the next
    signal, such as Ctrl-C, causes a segmentation fault (OpenVINO 2026.4).

    Raises:
        BackendUnavailableError: As for `import_openvino`, or OpenVINO does not start.
    """
    with _once:
        return _make_core()


@cache
def _make_core() -> Any:
    try:
        with named_out_of_memory("startup", "openvino", RuntimeError):
            return import_openvino().Core()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(f"backend 'openvino' does not start ({reason}); choose another") from error


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a graph that is computed in a single precision."""

    inputs: tuple[str, ...]
    """Names of the tensors it reads: inputs of the graph, or outputs of an earlier part."""
    outputs: tuple[str, ...]
    precision: OpenVinoPrecision


def open_parts(graph: bytes, what: str, parts: Sequence[Part], streams: int = 1) -> list[Any]:
    """Compile a graph for the CPU in parts that run one after another.

    Args:
        graph: The ONNX graph, in float32, with embedded weights.
        what: Name of the graph, for error messages.
        parts: The parts to compile.
        streams: Number of inference requests that each part runs in parallel.

    Returns:
        An `openvino.CompiledModel` for each part.

    Raises:
        BackendUnavailableError: The package is missing, or the processor does not support this precision.
        EngineOutOfMemoryError: Memory ran out.
        BundleError: The graph cannot be read or compiled, or lacks a tensor.
        EngineBuildError: OpenVINO compiled the graph in a different precision.
    """
    openvino, core = import_openvino(), openvino_core()
    if any(part.precision == "bf16" for part in parts):
        _require_bf16(core)
    models = []
    for part in parts:
        whole = _read(core, graph, what)
        with named_failures(what, "compile the graph"):
            try:
                cut = _cut(openvino, whole, part)
            except KeyError as error:
                raise BundleError(f"{what}: the graph has no tensor {error}; export the bundle again") from error
            models.append(core.compile_model(cut, "CPU", _settings(part.precision, streams)))
            _check_precision(models[-1], what, part.precision)
    return models


@contextmanager
def named_failures(what: str, task: str) -> Iterator[None]:
    """Translate exceptions that OpenVINO raises inside the block.

    Args:
        what: Name of the graph, for the error message.
        task: What OpenVINO is doing, for the error message.

    Raises:
        EngineOutOfMemoryError: Memory ran out.
        BundleError: Any other failure, because in a working installation only a bad graph causes one.
    """
    try:
        with named_out_of_memory(what, "openvino", RuntimeError):
            yield
    # All of OpenVINO's C++ exceptions become RuntimeError.
    except RuntimeError as error:
        raise BundleError(f"{what}: OpenVINO cannot {task}; export the bundle again") from error


def first_convolutions(graph: bytes, what: str) -> tuple[str, ...]:
    """Return the names of the output tensors of the convolutions that read a graph's input, sorted and unique.

    Raises:
        The same errors as `open_parts`.
    """
    model = _read(openvino_core(), graph, what)
    found = set()
    for taker in model.inputs[0].get_target_inputs():
        if taker.get_node().get_type_name() == "Convolution":
            (made,) = taker.get_node().outputs()
            # OpenVINO adds a bias in a separate node, whose output then carries the name.
            while not made.get_names():
                made = next(iter(made.get_target_inputs())).get_node().output(0)
            found.add(made.any_name)
    return tuple(sorted(found))


def convolution_shares(model: Any) -> Mapping[str, float]:
    """Return the precisions that the convolutions of a compiled model really use, weighted by number of weights.

    Args:
        model: An `openvino.CompiledModel`.

    Returns:
        Shares by type (`f32`, `bf16`) that add up to 1. Empty if the model has no convolutions.
    """
    weights: Counter[str] = Counter()
    for node in model.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if facts["layerType"].value in _CONVOLUTIONS:
            weights[facts["runtimePrecision"].value] += math.prod(node.input(1).get_shape())
    return {kind: count / weights.total() for kind, count in weights.items()}


def _read(core: Any, graph: bytes, what: str) -> Any:
    with named_failures(what, "read the graph"):
        return core.read_model(graph)


def _require_bf16(core: Any) -> None:
    """Raise BackendUnavailableError if the processor does not support bfloat16."""
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        name = core.get_property("CPU", "FULL_DEVICE_NAME")
        raise BackendUnavailableError(
            f"backend 'openvino' needs AVX512-BF16 or AMX for bf16, but this processor ({name}) "
            "has neither; use `precision=fp32`"
        )


def _cut(openvino: Any, model: Any, part: Part) -> Any:
    """Return a model that computes a part's outputs from its inputs. Raise KeyError if the graph lacks a tensor."""
    # A Result node carries the name of its source tensor, but nothing can read from it.
    makers = [node for node in model.get_ordered_ops() if node.get_type_name() != "Result"]
    tensors = {name: port for node in makers for port in node.outputs() for name in port.get_names()}
    parameters = []
    for name in part.inputs:
        node = tensors[name].get_node()
        if node.get_type_name() != "Parameter":
            node = _parameter_in_place_of(openvino, tensors[name], name)
        parameters.append(node)
    return openvino.Model([tensors[name] for name in part.outputs], parameters)


def _parameter_in_place_of(openvino: Any, port: Any, name: str) -> Any:
    """Return a new model input, and redirect all consumers of a tensor to it."""
    parameter = openvino.op.Parameter(port.get_element_type(), port.get_partial_shape())
    for taker in port.get_target_inputs():
        taker.replace_source_output(parameter.output(0))
    parameter.output(0).set_names({name})
    return parameter


def _check_precision(model: Any, what: str, precision: OpenVinoPrecision) -> None:
    """Raise EngineBuildError if the convolutions do not compute in the requested precision."""
    shares = convolution_shares(model)
    if set(shares) - {_HINTS[precision]}:
        raise EngineBuildError(
            f"{what}: OpenVINO was asked for {precision} but computes convolutions in {dict(shares)}; "
            f"run: {pip_install('openvino', '--upgrade')}"
        )


def _settings(precision: OpenVinoPrecision, streams: int) -> dict[str, str]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(available_cpus()),
        # With pinning, two processes on one machine would share the first cores and leave the others idle.
        "ENABLE_CPU_PINNING": "NO",
    }


@contextmanager
def _telemetry_missing() -> Iterator[None]:
    """Make the telemetry package appear uninstalled, so that OpenVINO uses its built-in stub."""
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
