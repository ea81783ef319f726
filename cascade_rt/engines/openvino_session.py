"""OpenVINO models that compute on the CPU in the precision they were told to, and tell nobody.

Left to itself OpenVINO computes a float32 graph in bfloat16 wherever the processor can, and says so nowhere. Here the
precision is always stated; `convolution_shares` reads back what was made of it.

Left to itself it also sends an event to its makers each time it is imported, and writes an identifier into the home
folder. Here it is imported without the package that does.
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

from cascade_rt.common.packages import pip_install
from cascade_rt.common.processors import available_cpus
from cascade_rt.engines.out_of_memory import named_out_of_memory
from cascade_rt.engines.packages import import_package
from cascade_rt.errors import BackendUnavailableError, BundleError, EngineBuildError

OpenVinoPrecision = Literal["fp32", "bf16"]
_HINTS: Mapping[OpenVinoPrecision, str] = {"fp32": "f32", "bf16": "bf16"}
_CONVOLUTIONS = ("Convolution", "Deconvolution")
_TELEMETRY = "openvino_telemetry"
# There is one core, and its telemetry is hidden for the moment of one import, whichever thread comes first.
_once = threading.RLock()


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Raises:
        BackendUnavailableError: The package is not installed or cannot be loaded.
    """
    with _once, _telemetry_missing():
        return import_package("openvino", backend="openvino", extra="openvino")


def openvino_core() -> Any:
    """The one `openvino.Core` of this process, never freed.

    Each core gives the thread that it compiles in a stack for signal handlers, and takes it away when it and its models
    are freed; of two cores the second then puts back the stack of the first, which is gone, and the next signal, such
    as Ctrl-C, is a segmentation fault (OpenVINO 2026.4).

    Raises:
        BackendUnavailableError: As in `import_openvino`, or it does not start.
    """
    with _once:
        return _make_core()


@cache
def _make_core() -> Any:
    try:
        with named_out_of_memory("its start", "openvino", RuntimeError):
            return import_openvino().Core()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(f"backend 'openvino' does not start ({reason}); take another") from error


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a graph that is computed in one precision."""

    inputs: tuple[str, ...]
    """Tensors of the graph that it takes: inputs of the graph, or what a part before it returns."""
    outputs: tuple[str, ...]
    precision: OpenVinoPrecision


def open_parts(graph: bytes, what: str, parts: Sequence[Part], streams: int = 1) -> list[Any]:
    """Compile a graph for the CPU in parts, which run one after the other.

    Args:
        graph: The ONNX graph, in float32, with its weights inside.
        what: Which graph it is, for messages.
        parts: The parts.
        streams: How many images each part computes side by side.

    Returns:
        An `openvino.CompiledModel` for each part.

    Raises:
        BackendUnavailableError: The package is missing, the processor does not compute in this precision, or memory is
            short.
        BundleError: The graph cannot be read or compiled, or has no such tensors.
        EngineBuildError: OpenVINO did not make of it what it was asked for.
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
    """Turn what OpenVINO raises inside into an error that says so.

    Args:
        what: The graph, for the message.
        task: What OpenVINO is doing to it, for the message.

    Raises:
        EngineOutOfMemoryError: Memory was short.
        BundleError: Anything else; the libraries of a healthy install fail on nothing but graphs.
    """
    try:
        with named_out_of_memory(what, "openvino", RuntimeError):
            yield
    # The one class that OpenVINO's C++ exceptions become.
    except RuntimeError as error:
        raise BundleError(f"{what}: OpenVINO cannot {task}; export the bundle again") from error


def first_convolutions(graph: bytes, what: str) -> tuple[str, ...]:
    """The tensors that the convolutions reading the input of a graph make; each name once, in order.

    Raises:
        As `open_parts`.
    """
    model = _read(openvino_core(), graph, what)
    found = set()
    for taker in model.inputs[0].get_target_inputs():
        if taker.get_node().get_type_name() == "Convolution":
            (made,) = taker.get_node().outputs()
            # A bias is a node of its own here, and then it is its output that has the name.
            while not made.get_names():
                made = next(iter(made.get_target_inputs())).get_node().output(0)
            found.add(made.any_name)
    return tuple(sorted(found))


def convolution_shares(model: Any) -> Mapping[str, float]:
    """What the convolutions of a compiled model really compute in: the share of their weights by type.

    Args:
        model: An `openvino.CompiledModel`.

    Returns:
        Shares that add up to 1, by `f32` and `bf16`; none where it has no convolutions.
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
    """Raise BackendUnavailableError where the processor does not compute in bfloat16."""
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        name = core.get_property("CPU", "FULL_DEVICE_NAME")
        raise BackendUnavailableError(
            f"backend 'openvino' computes in bf16 where the processor has AVX512-BF16 or AMX, and this one ({name}) "
            "has neither; take `precision=fp32`"
        )


def _cut(openvino: Any, model: Any, part: Part) -> Any:
    """What computes the outputs of a part from its inputs; KeyError where the graph has no such tensor."""
    # A Result has the name of what it is the result of, and nobody takes anything from it.
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
    """A new input of the model, which all that took a tensor of it takes instead."""
    parameter = openvino.op.Parameter(port.get_element_type(), port.get_partial_shape())
    for taker in port.get_target_inputs():
        taker.replace_source_output(parameter.output(0))
    parameter.output(0).set_names({name})
    return parameter


def _check_precision(model: Any, what: str, precision: OpenVinoPrecision) -> None:
    """Raise EngineBuildError where the convolutions do not compute in the precision asked for."""
    shares = convolution_shares(model)
    if set(shares) - {_HINTS[precision]}:
        raise EngineBuildError(
            f"{what}: OpenVINO was asked for {precision}, and computes its convolutions in {dict(shares)}; "
            f"run: {pip_install('openvino', '--upgrade')}"
        )


def _settings(precision: OpenVinoPrecision, streams: int) -> dict[str, str]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(available_cpus()),
        # Pinned to the first cores, two processes on one machine would share these and leave the others idle.
        "ENABLE_CPU_PINNING": "NO",
    }


@contextmanager
def _telemetry_missing() -> Iterator[None]:
    """Make the telemetry package look uninstalled: OpenVINO then takes the stand-in it has for that."""
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
