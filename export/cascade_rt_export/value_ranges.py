"""Observe the range of the values inside a graph on given inputs."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cascade_rt.engines.base import Array
from cascade_rt.errors import BundleError, InputError
from cascade_rt_export.cpu_session import cpu_session
from cascade_rt_export.float_tensors import float_tensors

LARGEST_HALF = 65504.0
"""Largest finite number of float16."""
SMALLEST_NORMAL_HALF = 2.0**-14
"""Smallest normal number of float16. Values below it lose digits, and values below 2**-25 become 0."""

_MARK = "observed/"
_COUNTS = ("nonzero", "subnormal", "strange")
_EXTREMES = {"largest": TensorProto.FLOAT} | dict.fromkeys(_COUNTS, TensorProto.INT64)


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Statistics of the values of a tensor over all inputs."""

    largest: float
    """Largest absolute value."""
    nonzero: int
    """Number of nonzero values."""
    subnormal: int
    """Number of nonzero values too small for a normal float16 number."""

    @property
    def subnormal_share(self) -> float:
        """Return the share of the nonzero values that are subnormal, or 0 if all values are 0."""
        return self.subnormal / self.nonzero if self.nonzero else 0.0

    def __or__(self, other: "ValueRange") -> "ValueRange":
        return ValueRange(
            max(self.largest, other.largest), self.nonzero + other.nonzero, self.subnormal + other.subnormal
        )


def observe_ranges(graph: ModelProto, inputs: Iterable[Mapping[str, Array]]) -> dict[str, ValueRange]:
    """Run a float32 graph and observe every float tensor in it except the weights.

    The statistics are computed inside the graph, so that only a few numbers per tensor leave it. The tensors of a
    network of base width 64 on a 512 x 512 slice would take many gigabytes.

    Args:
        graph: The graph. It is not modified.
        inputs: Inputs to run the graph on, consumed one by one.

    Returns:
        The range over all inputs of each graph input and of each float tensor that a node computes.

    Raises:
        BundleError: The graph computes NaN or infinity.
        InputError: There are no inputs.
    """
    weights = {tensor.name for tensor in graph.graph.initializer}
    names = sorted(float_tensors(graph) - weights)
    session = _observing_session(graph, names)
    found: dict[str, ValueRange] = {}
    for feeds in inputs:
        numbers = np.asarray(session.run(None, dict(feeds)), dtype=np.float64).reshape(len(_EXTREMES), len(names))
        for name, (largest, nonzero, subnormal, strange) in zip(names, numbers.T.tolist(), strict=True):
            if strange:
                raise BundleError(f"tensor {name!r} contains NaN or infinity; check the input and the weights")
            seen = ValueRange(largest, int(nonzero), int(subnormal))
            found[name] = found[name] | seen if name in found else seen
    if not found:
        raise InputError("no input to observe the graph on; pass at least one")
    return found


def _observing_session(graph: ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    """Open a session whose outputs are the statistics: the largest values of all tensors, then each of the counts."""
    observing = copy.deepcopy(graph)
    del observing.graph.output[:]
    limits = {"zero": 0.0, "normal": SMALLEST_NORMAL_HALF, "end": float(np.finfo(np.float32).max)}
    for name, value in limits.items():
        observing.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float32), _MARK + name))
    for name in names:
        observing.graph.node.extend(_observers(name))
    for kind, element in _EXTREMES.items():
        observing.graph.output.extend(
            helper.make_tensor_value_info(f"{_MARK}{kind}/{name}", element, ()) for name in names
        )
    return cpu_session(observing, optimised=False)


def _observers(name: str) -> list[NodeProto]:
    """Return nodes that observe a tensor.

    They compute its largest absolute value and count its nonzero, subnormal and nonfinite values.
    """

    def named(kind: str) -> str:
        return f"{_MARK}{kind}/{name}"

    nodes = [
        helper.make_node("Abs", [name], [named("abs")]),
        helper.make_node("ReduceMax", [named("abs")], [named("largest")], keepdims=0),
        helper.make_node("Greater", [named("abs"), _MARK + "zero"], [named("is_nonzero")]),
        helper.make_node("Less", [named("abs"), _MARK + "normal"], [named("is_below")]),
        helper.make_node("And", [named("is_nonzero"), named("is_below")], [named("is_subnormal")]),
        helper.make_node("LessOrEqual", [named("abs"), _MARK + "end"], [named("is_finite")]),
        helper.make_node("Not", [named("is_finite")], [named("is_strange")]),
    ]
    for kind in _COUNTS:
        nodes.append(helper.make_node("Cast", [named(f"is_{kind}")], [named(f"{kind}_ones")], to=TensorProto.INT64))
        nodes.append(helper.make_node("ReduceSum", [named(f"{kind}_ones")], [named(kind)], keepdims=0))
    return nodes
