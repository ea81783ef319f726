"""Graphs written by hand for the tests of half precision, and ways to run graphs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cascade_rt.common.tensors import STAGE_SPECS, Stage
from cascade_rt_export.cpu_session import cpu_session
from cascade_rt_export.half_precision import HalfPrecision


class Converted(NamedTuple):
    """A stage in both precisions, and inputs that it was not calibrated on."""

    single: ModelProto
    half: HalfPrecision
    inputs: dict[str, np.ndarray]


def model(nodes: Sequence[NodeProto], weights: Mapping[str, np.ndarray], rank: int = 1) -> ModelProto:
    """A graph from `x` to `y`, both float32 of named axes."""
    axes = ["batch", "channel", "height", "width"][:rank]
    graph = helper.make_graph(
        list(nodes),
        "by_hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def of_stage(graph: ModelProto, stage: Stage = "stage1") -> ModelProto:
    """The graph with the input of a stage in place of `x`: one channel, other axes of any length."""
    image = STAGE_SPECS[stage].inputs[0].name
    for step in graph.graph.node:
        step.input[:] = [image if name == "x" else name for name in step.input]
    graph.graph.input[0].name = image
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    return graph


def node(operator: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    """A node that has the name of its output."""
    return helper.make_node(operator, inputs.split(), [output], name=output, **attributes)


def run(graph: ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of a graph by name."""
    session = cpu_session(graph)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def convolutions(gains: Iterable[float], shrink: float) -> ModelProto:
    """1x1 convolutions of one channel that multiply by each gain, a ReLU behind each, and one that shrinks again."""
    nodes, weights, name = [], {}, "x"
    for index, gain in enumerate((*gains, shrink)):
        weights[f"w{index}"] = np.full((1, 1, 1, 1), gain, dtype=np.float32)
        nodes.append(node("Conv", f"{name} w{index}", f"conv{index}"))
        nodes.append(node("Relu", f"conv{index}", f"relu{index}"))
        name = f"relu{index}"
    nodes[-1].output[0] = "y"
    return model(nodes, weights, rank=4)


def half_weights(graph: ModelProto) -> set[str]:
    """Names of the weights that a graph stores in float16."""
    return {tensor.name for tensor in graph.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
