"""Emulate a half-precision graph by a float32 graph that rounds in the same places.

ONNX Runtime has few float16 kernels on the CPU, and between nodes without one it drops the rounding: 300 x 300 x 0.001
is 90 there but infinite on a GPU. Running the half-precision graph itself on the CPU therefore proves nothing. Here
each rounding is a pair of casts, which ONNX Runtime does execute.
"""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cascade_rt_export.float_tensors import HALF, SINGLE


def rounding_graph(half: ModelProto) -> ModelProto:
    """Convert a half-precision graph to a float32 graph that rounds each of its float16 values to float16.

    Within a node, the result is more accurate than on a GPU that sums in float16. Matrix units sum in float32.

    Args:
        half: A graph from `to_half`. It is not modified.

    Returns:
        A graph with the same inputs and outputs.
    """
    types = _types(half)
    rounding = ModelProto()
    rounding.CopyFrom(half)
    del rounding.graph.node[:]
    del rounding.graph.initializer[:]
    rounding.graph.initializer.extend(_widened(tensor) for tensor in half.graph.initializer)
    for node in half.graph.node:
        rounding.graph.node.extend(_rounded(node, types))
    onnx.checker.check_model(rounding, full_check=True)
    return rounding


def _types(half: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _rounded(node: NodeProto, types: dict[str, int]) -> list[NodeProto]:
    """Return a node in float32, followed by casts that round each output that was float16."""
    wide = NodeProto()
    wide.CopyFrom(node)
    if node.op_type == "Cast" and node.attribute[0].i == HALF:
        wide.attribute[0].i = SINGLE
    nodes = [wide]
    for index, name in enumerate(node.output):
        if types.get(name) == HALF:
            wide.output[index] = f"{name}/exact"
            nodes.append(helper.make_node("Cast", [f"{name}/exact"], [f"{name}/rounded"], to=HALF))
            nodes.append(helper.make_node("Cast", [f"{name}/rounded"], [name], to=SINGLE))
    return nodes


def _widened(tensor: TensorProto) -> TensorProto:
    if tensor.data_type != HALF:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
