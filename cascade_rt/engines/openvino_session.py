"""OpenVINO models that compute on the CPU in the precision they were told to, and tell nobody.

Left to itself OpenVINO computes a float32 graph in bfloat16 wherever the processor can, and says so nowhere. Here the
precision is always stated; `convolution_shares` reads back what was made of it.

Left to itself it also sends an event to its makers each time it is imported, and writes an identifier into the home
folder. Here it is imported without the package that does.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from cascade_rt.engines.packages import import_package
from cascade_rt.errors import BackendUnavailableError, BundleError, EngineBuildError
from cascade_rt.processors import available_cpus

OpenVinoPrecision = Literal["fp32", "bf16"]
_HINTS: Mapping[OpenVinoPrecision, str] = {"fp32": "f32", "bf16": "bf16"}
_CONVOLUTIONS = ("Convolution", "Deconvolution")
_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Raises:
        BackendUnavailableError: The package is not installed or cannot be loaded.
    """
    with _telemetry_missing():
        return import_package("openvino", backend="openvino", extra="openvino")


def open_openvino_model(graph: bytes, what: str, precision: OpenVinoPrecision = "fp32") -> Any:
    """Compile a graph for the CPU.

    Args:
        graph: The ONNX graph, in float32, with its weights inside.
        what: Which graph it is, for messages.
        precision: What it computes in.

    Returns:
        An `openvino.CompiledModel`.

    Raises:
        BackendUnavailableError: The package is missing, or the processor does not compute in this precision.
        BundleError: The graph cannot be read.
        EngineBuildError: OpenVINO did not make of it what it was asked for.
    """
    openvino = import_openvino()
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        name = core.get_property("CPU", "FULL_DEVICE_NAME")
        raise BackendUnavailableError(
            f"backend 'openvino' computes in bf16 where the processor has AVX512-BF16 or AMX, and this one ({name}) "
            "has neither; take --precision fp32"
        )
    try:
        model = core.compile_model(core.read_model(graph), "CPU", _settings(precision))
    # The one class that OpenVINO's C++ exceptions become.
    except RuntimeError as error:
        raise BundleError(f"{what}: OpenVINO cannot read the graph; export the bundle again") from error
    _check_precision(model, what, precision)
    return model


def convolution_shares(model: Any) -> Mapping[str, float]:
    """What the convolutions of a compiled model really compute in: the share of their weights by type.

    Args:
        model: An `openvino.CompiledModel`.

    Returns:
        Shares that add up to 1, by `f32` and `bf16`.
    """
    weights: Counter[str] = Counter()
    for node in model.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if facts["layerType"].value in _CONVOLUTIONS:
            weights[facts["runtimePrecision"].value] += math.prod(node.input(1).get_shape())
    return {kind: count / weights.total() for kind, count in weights.items()}


def _check_precision(model: Any, what: str, precision: OpenVinoPrecision) -> None:
    """Raise EngineBuildError where the convolutions do not compute in the precision asked for."""
    shares = convolution_shares(model)
    if shares.get(_HINTS[precision]) != 1.0:
        raise EngineBuildError(
            f"{what}: OpenVINO was asked for {precision}, and computes its convolutions in {dict(shares)}; "
            "run: pip install --upgrade 'cascade-rt[openvino]'"
        )


def _settings(precision: OpenVinoPrecision) -> dict[str, str]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
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
