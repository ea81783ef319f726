"""Build the graph that `cascade-rt doctor` runs.

`python -m cascade_rt_export.doctor_graph` writes it to `GRAPH_PATH`, from where it is read.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cascade_rt.engines.smoke_tests import GRAPH_PATH, SIDE


def doctor_graph() -> onnx.ModelProto:
    """Build a convolution that sums 3 x 3 pixels, then ReLU, from `image` to `sums`, both `[1, 1, row, col]`."""
    shape = [1, 1, SIDE, SIDE]
    weights = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "weights")
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["added"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["added"], ["sums"]),
    ]
    image, sums = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "sums"))
    graph = helper.make_graph(nodes, "doctor", [image], [sums], [weights])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="cascade-rt"
    )


if __name__ == "__main__":
    GRAPH_PATH.write_bytes(doctor_graph().SerializeToString(deterministic=True))
