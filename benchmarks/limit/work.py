"""What a graph has to compute and to move: operations of convolutions and matrix products, and bytes around them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from cascade_rt.engines.base import Array
from cascade_rt_export.conv_work import CONVOLUTIONS, multiplications, tensor_shapes

PRODUCTS = ("MatMul", "Gemm")
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Work:
    """Of one run, or of several together."""

    operations: float
    """Two for each multiplication: it is added to something."""
    bytes: float
    """Read and written by each convolution and product in float32 as if none found anything in a cache; what lies
    between them is counted as fused into them."""

    def __add__(self, other: "Work") -> "Work":
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def __mul__(self, times: float) -> "Work":
        return Work(self.operations * times, self.bytes * times)


def work_of(graph: ModelProto, inputs: Mapping[str, Array]) -> Work:
    """Count the work of a graph on inputs of a given size; it is run twice.

    Convolutions are counted as they are defined, a multiplication for each weight and position; algorithms such as
    Winograd's need fewer.
    """
    nodes = [node for node in graph.graph.node if node.op_type in (*CONVOLUTIONS, *PRODUCTS)]
    shapes = tensor_shapes(graph, [name for node in nodes for name in (*node.input, *node.output) if name], inputs)
    convolutions = sum(multiplications(graph, inputs).values())
    products = sum(_product(node, shapes) for node in nodes if node.op_type in PRODUCTS)
    moved = sum(int(np.prod(shapes[name])) for node in nodes for name in (*node.input, *node.output) if name)
    return Work(2.0 * (convolutions + products), float(_FLOAT_BYTES * moved))


def _product(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiplications of a matrix product: one for each element of the result and of the axis that is summed over."""
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    summed = shapes[node.input[0]][-2 if transposed else -1]
    return int(np.prod(shapes[node.output[0]])) * summed
