"""Small graphs with convolutions of few channels."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def graph_of(siblings: Sequence[int] = (16,), single_kernel: int = 1, poolings: int = 0) -> ModelProto:
    """An image, pooled, read by sibling convolutions with ReLU; all their channels to one, by one convolution.

    Args:
        siblings: Output channels of each sibling.
        single_kernel: Height and width of the last kernel.
        poolings: How often the image is halved.
    """
    random = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    weights: dict[str, np.ndarray] = {}

    def convolution(name: str, source: str, shape: tuple[int, ...]) -> str:
        weights[f"{name}/w"] = (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        weights[f"{name}/b"] = random.normal(size=shape[0]).astype(np.float32)
        pads = [shape[-1] // 2] * 4
        nodes.append(helper.make_node("Conv", [source, f"{name}/w", f"{name}/b"], [f"{name}/o"], name, pads=pads))
        return f"{name}/o"

    image = "image"
    for index in range(poolings):
        halved = {"kernel_shape": [2, 2], "strides": [2, 2]}
        nodes.append(helper.make_node("MaxPool", [image], [f"pooled{index}"], f"pool{index}", **halved))
        image = f"pooled{index}"
    features = []
    for index, channels in enumerate(siblings):
        found = convolution(f"sibling{index}", image, (channels, 1, 3, 3))
        nodes.append(helper.make_node("Relu", [found], [f"features{index}"], f"relu{index}"))
        features.append(f"features{index}")
    nodes.append(helper.make_node("Concat", features, ["features"], "concat", axis=1))
    last = convolution("single", "features", (1, sum(siblings), single_kernel, single_kernel))
    nodes.append(helper.make_node("Sigmoid", [last], ["prob"], "sigmoid"))
    lengths = ["batch", 1, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "narrow",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, lengths)],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["batch", 1, "rows", "cols"])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
