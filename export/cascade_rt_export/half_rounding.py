"""A float32 graph that rounds wherever a half-precision graph does.

ONNX Runtime has few float16 kernels on the CPU. Between nodes without one it drops the roundings: 300 x 300 x 0.001 is
90 there, and infinite on a GPU. So the half-precision graph itself, run on the CPU, proves nothing. Here each rounding
is a pair of casts, which ONNX Runtime carries out.
"""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cascade_rt_export.float_tensors import HALF, SINGLE


def rounding_graph(half: ModelProto) -> ModelProto:
    """Compute in float32 what a half-precision graph computes, each of its float16 values rounded to float16.

    Inside a node it is more exact than a GPU whose sums are in float16; matrix units sum in float32.

    Args:
        half: A graph of `to_half`; it is not changed.

    Returns:
        A graph of the same inputs and outputs.
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
    """A node in float32, and behind it the rounding of each of its outputs that was float16."""
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
