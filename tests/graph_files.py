"""Small ONNX graphs, sound ones and ones that are to be refused."""

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


def sound_model() -> ModelProto:
    """A convolution and a ReLU, with all the kinds of fields that exported graphs have."""
    weights = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "weights")
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["added"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["added"], ["sums"], name="relu"),
    ]
    image, sums = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8]) for name in ("image", "sums"))
    graph = helper.make_graph(nodes, "small", [image], [sums], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def constant_tensor() -> onnx.TensorProto:
    """A tensor that stands in an attribute."""
    return numpy_helper.from_array(np.zeros(2, np.float32), "constant")
