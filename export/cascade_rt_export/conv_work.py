"""Measure the convolution work of a network, and the share of it done in half precision."""

import copy
from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, TensorProto, helper

from cascade_rt.engines.base import Array
from cascade_rt_export.cpu_session import cpu_session
from cascade_rt_export.float_tensors import HALF

CONVOLUTIONS = ("Conv", "ConvTranspose")


def half_share(graph: ModelProto, inputs: Mapping[str, Array]) -> float | None:
    """Return the share of a graph's multiplications in convolutions that is in half precision.

    Args:
        graph: A graph from `to_half`.
        inputs: Inputs of the size to count for. The graph is run once on them.

    Returns:
        The share, or None if the graph has no convolutions, such as a stage 1 without a network.
    """
    work = multiplications(graph, inputs)
    if not work:
        return None
    weights = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    halved = sum(work[node.name] for node in graph.graph.node if node.name in work and weights[node.input[1]] == HALF)
    return halved / sum(work.values())


def multiplications(graph: ModelProto, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Count the multiplications of each convolution, by name: one per weight and position where it is applied.

    Args:
        graph: A graph with its weights inside.
        inputs: Inputs of the size to count for. The graph is run once on them.
    """
    nodes = [node for node in graph.graph.node if node.op_type in CONVOLUTIONS]
    # The weight of Conv is [out, in / groups, row, col] and is applied at each output position. The weight of
    # ConvTranspose is [in, out / groups, row, col] and is applied at each input position.
    applied_at = {node.name: node.output[0] if node.op_type == "Conv" else node.input[0] for node in nodes}
    shapes = tensor_shapes(graph, applied_at.values(), inputs)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    work = {}
    for node in nodes:
        batch, _, rows, cols = shapes[applied_at[node.name]]
        work[node.name] = sizes[node.input[1]] * batch * rows * cols
    return work


def tensor_shapes(graph: ModelProto, names: Iterable[str], inputs: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors inside a graph, by running it once on the inputs."""
    counting, listed = copy.deepcopy(graph), list(dict.fromkeys(names))
    if not listed:
        return {}
    for index, name in enumerate(listed):
        counting.graph.node.append(helper.make_node("Shape", [name], [f"shape/{index}"]))
    del counting.graph.output[:]
    counting.graph.output.extend(
        helper.make_tensor_value_info(f"shape/{index}", TensorProto.INT64, (None,)) for index in range(len(listed))
    )
    found = cpu_session(counting).run(None, dict(inputs))
    return {name: tuple(int(side) for side in shape) for name, shape in zip(listed, found, strict=True)}
