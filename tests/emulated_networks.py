"""Small ONNX graphs as plans of the stand-in for TensorRT, whose results are known exactly."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
Profiles = Sequence[tuple[Shape, Shape]]
"""The smallest and the largest shape of each profile."""

IMAGE = ("batch", 1, "height", "width")
SMALL: Profiles = (((1, 1, 2, 2), (4, 1, 8, 8)), ((1, 1, 2, 2), (1, 1, 16, 16)))
"""Batches of small images, and single ones of twice their size."""


def plan_of(network: ModelProto, profiles: Profiles) -> bytes:
    """Serialize a network as an engine that takes the shapes of these profiles."""
    from tensorrt._plan import Plan, Profile

    name = network.graph.input[0].name
    taken = tuple(Profile({name: (low, low, high)}) for low, high in profiles)
    return Plan(network.SerializeToString(), taken, detailed=True).to_bytes()


def doubling(source: str = "image", target: str = "doubled") -> ModelProto:
    """An image in, twice the image out."""
    return _network([helper.make_node("Add", [source, source], [target])], source, {target: IMAGE})


def squaring(source: str, target: str) -> ModelProto:
    """An image in, its square out."""
    return _network([helper.make_node("Mul", [source, source], [target])], source, {target: IMAGE})


def organ_by_hu(lowest_hu: float, window_hu: tuple[float, float]) -> ModelProto:
    """The stage 1 of `cascade_rt.engines.fake.organ_by_hu`."""
    low, high = window_hu
    constants = {"lowest": lowest_hu, "low": low, "width": high - low, "zero": 0.0, "one": 1.0}
    nodes = [
        helper.make_node("GreaterOrEqual", ["hu", "lowest"], ["organ"]),
        helper.make_node("Cast", ["organ"], ["organ_prob"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["organ_prob", "axes_row"], ["row_max"], keepdims=0),
        helper.make_node("ReduceMax", ["organ_prob", "axes_col"], ["col_max"], keepdims=0),
        helper.make_node("Sub", ["hu", "low"], ["above"]),
        helper.make_node("Div", ["above", "width"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "zero", "one"], ["salient"]),
    ]
    weights = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    weights += [numpy_helper.from_array(np.array([1, axis]), name) for name, axis in (("axes_row", 3), ("axes_col", 2))]
    outputs = {
        "organ_prob": IMAGE,
        "row_max": ("batch", "height"),
        "col_max": ("batch", "width"),
        "salient": IMAGE,
    }
    return _network(nodes, "hu", outputs, weights)


def _network(
    nodes: list[NodeProto],
    source: str,
    outputs: dict[str, tuple[str | int, ...]],
    weights: list[TensorProto] | None = None,
) -> ModelProto:
    def value(name: str, shape: tuple[str | int, ...]) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    results = [value(name, shape) for name, shape in outputs.items()]
    graph = helper.make_graph(nodes, "network", [value(source, IMAGE)], results, weights or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
