"""Plan which nodes of a graph stay in float32 when the rest is converted to half precision, and why."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from cascade_rt_export.early_convolutions import early_convolutions
from cascade_rt_export.float_tensors import computes_in_half, float_tensors, opset_of
from cascade_rt_export.fp16_rules import FP16_RULES, Wiring, image_convolutions, made_of_lengths
from cascade_rt_export.value_ranges import LARGEST_HALF, SMALLEST_NORMAL_HALF, ValueRange

HEADROOM = 8.0
"""Factor by which a value may exceed those seen on the calibration inputs before float16 overflows."""
FAINT_SHARE = 0.5
"""A tensor is faint if more than this share of its values is subnormal in float16 ..."""
FAINT_LARGEST = 1024 * SMALLEST_NORMAL_HALF
"""... and all are smaller than this. Next to larger values, the rounding error of subnormals, 3e-8, is negligible."""
WEIGHT_ERROR = 1e-3
"""Largest error of the float16 copy of a weight, relative to the weight's norm. Ordinary rounding gives 2e-4."""

REASONS: Mapping[str, str] = {
    "window": "takes Hounsfield units, which reach -32768 and have no upper bound",
    "image": "reads the image, whose pixels differ by little more than float16 resolves",
    "near": "reads only what was made of the image, and all of the network reads what it rounds",
    "softmax": "sums products and exponentials over channels or positions",
    "probability": "is a probability that a threshold is held against, or computed of one",
    "sum": "sums over all positions",
    "resize": "computes positions from scales",
    "lengths": "computes with the lengths of axes, once for a whole image",
    "operator": "has no half-precision form",
    "large": f"reads or writes values within a factor of {HEADROOM:g} of {LARGEST_HALF:g}",
    "faint": "reads or writes values too small for normal numbers of float16",
    "weight": f"has weights that float16 changes by more than {WEIGHT_ERROR:g} of their norm",
}
"""Every rule, and the reason it gives for the nodes it keeps."""


@dataclass(frozen=True, slots=True)
class KeptNode:
    """A node that stays in float32."""

    name: str
    rule: str
    """Key in `REASONS`. The first rule if several apply."""

    @property
    def reason(self) -> str:
        """Return the reason in words."""
        return REASONS[self.rule]


def plan_kept(graph: ModelProto, ranges: Mapping[str, ValueRange], work: Mapping[str, int]) -> tuple[KeptNode, ...]:
    """Choose the nodes that stay in float32, by rules on the graph structure and on the observed values.

    Args:
        graph: The float32 graph. Its node names are unique.
        ranges: Value ranges of its tensors on calibration inputs, from `observe_ranges`.
        work: Multiplications of each convolution, from `multiplications`.

    Returns:
        The kept nodes in graph order, each with the first rule that keeps it.
    """
    wiring, floats = Wiring(graph), float_tensors(graph)
    ruled: dict[str, str] = {}
    for rule, nodes in _all_rules(graph, wiring, floats, ranges, work):
        for node in nodes:
            if any(name in floats for name in (*node.input, *node.output)):
                ruled.setdefault(node.name, rule)
    return tuple(KeptNode(node.name, ruled[node.name]) for node in wiring.nodes if node.name in ruled)


def image_in_halves(graph: ModelProto, kept: Iterable[KeptNode]) -> tuple[KeptNode, ...]:
    """Return the plan without the convolutions that read the image and those behind them.

    `to_half` then lets the former read the image in halves, and the latter in half precision what those made.
    """
    readers = {node.name for node in image_convolutions(Wiring(graph))}
    return tuple(node for node in kept if node.rule != "near" and not (node.rule == "image" and node.name in readers))


def kept_table(kept: Iterable[KeptNode]) -> list[dict[str, Any]]:
    """Return kept nodes as plain values, with one entry of rule, reason and node names per rule."""
    grouped: dict[str, list[str]] = {}
    for node in kept:
        grouped.setdefault(node.rule, []).append(node.name)
    return [{"rule": rule, "reason": REASONS[rule], "nodes": grouped[rule]} for rule in REASONS if rule in grouped]


def _all_rules(
    graph: ModelProto,
    wiring: Wiring,
    floats: frozenset[str],
    ranges: Mapping[str, ValueRange],
    work: Mapping[str, int],
) -> Iterator[tuple[str, Iterator[NodeProto]]]:
    """Yield each rule with the nodes that it keeps, strongest reason first."""
    yield "lengths", made_of_lengths(wiring, floats)
    yield "operator", _without_half_form(graph, floats)
    for rule, find in FP16_RULES.items():
        yield rule, find(wiring)
    yield "near", early_convolutions(wiring, work)
    yield "large", _touching(wiring, {name for name, seen in ranges.items() if _is_large(seen)})
    yield "faint", _touching(wiring, {name for name, seen in ranges.items() if _is_subnormal(seen)})
    unfit = {tensor.name for tensor in graph.graph.initializer if tensor.name in floats and _rounds_badly(tensor)}
    yield "weight", (node for node in wiring.nodes if unfit.intersection(node.input))


def _touching(wiring: Wiring, names: set[str]) -> Iterator[NodeProto]:
    return (node for node in wiring.nodes if names.intersection((*node.input, *node.output)))


def _is_large(seen: ValueRange) -> bool:
    return seen.largest > LARGEST_HALF / HEADROOM


def _is_subnormal(seen: ValueRange) -> bool:
    return seen.subnormal_share > FAINT_SHARE and seen.largest < FAINT_LARGEST


def _rounds_badly(tensor: TensorProto) -> bool:
    """Return whether float16 changes a float32 weight by more than `WEIGHT_ERROR` of its norm, or overflows."""
    weight = numpy_helper.to_array(tensor).astype(np.float64)
    with np.errstate(over="ignore"):
        error = np.linalg.norm(weight.astype(np.float16) - weight)
    # Negated so that an overflow also counts as bad.
    return not error <= WEIGHT_ERROR * np.linalg.norm(weight)


def _without_half_form(graph: ModelProto, floats: frozenset[str]) -> Iterator[NodeProto]:
    opset = opset_of(graph)
    for node in graph.graph.node:
        if any(name in floats for name in node.output) and not computes_in_half(node, floats, opset):
            yield node
