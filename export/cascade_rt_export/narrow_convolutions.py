"""Rewrite convolutions with few output channels to fill the processor's vectors, without changing the results.

A CPU computes 16 output channels of a pixel at once (a GPU 8), so a convolution with 1 or 4 output channels costs as
much as one with 16. There are two rewrites, both of which compute the same sums:

- Convolutions with the same kernel size that read the same tensor are merged, and their channels are split afterwards.
- A convolution to one channel computes 4 x 4 pixels at once, as 16 channels of a kernel that is 3 pixels wider and has
  stride 4. `DepthToSpace` then moves the channels to their pixels.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cascade_rt.common.tensors import SHORTEST_SIDE, SIDE_MULTIPLE
from cascade_rt.engines.base import Array
from cascade_rt_export.cpu_session import cpu_session

VECTOR = 16
"""Output channels computed at once."""
BLOCK = 4
"""Rows and columns of the block of pixels that is computed as the channels of one vector."""


def fill_vectors(model: ModelProto, side_multiple: int = SIDE_MULTIPLE) -> None:
    """Rewrite the narrow convolutions of a model with a single image input, in place.

    Args:
        model: A model with its weights inside and its normalizations folded.
        side_multiple: The height and width of its images are multiples of this, in pixels.
    """
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    _merge_siblings(model, weights)
    _store(model, weights)
    _spread_single_channels(model, weights, side_multiple)
    _store(model, weights)


def _store(model: ModelProto, weights: Mapping[str, Array]) -> None:
    """Replace the initializers of a model by those of the given weights that its nodes read."""
    read = {name for node in model.graph.node for name in node.input}
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        numpy_helper.from_array(weight, name) for name, weight in weights.items() if name in read
    )


def _merge_siblings(model: ModelProto, weights: dict[str, Array]) -> None:
    replaced: dict[str, Sequence[NodeProto]] = {}
    dropped: set[str] = set()
    for pairs in _siblings(model, weights):
        channels = [len(weights[convolution.input[1]]) for convolution, _ in pairs]
        if len(pairs) < 2 or _vectors([sum(channels)]) >= _vectors(channels):
            continue
        first = pairs[0][0]
        name = f"{first.name}/merged"
        weights[f"{name}/weight"] = np.concatenate([weights[convolution.input[1]] for convolution, _ in pairs])
        weights[f"{name}/bias"] = np.concatenate([weights[convolution.input[2]] for convolution, _ in pairs])
        weights[f"{name}/channels"] = np.array(channels, dtype=np.int64)
        merged = helper.make_node("Conv", [first.input[0], f"{name}/weight", f"{name}/bias"], [f"{name}/sum"], name)
        merged.attribute.extend(first.attribute)
        relu = helper.make_node("Relu", [f"{name}/sum"], [f"{name}/all"], f"{name}/relu")
        outputs = [relu.output[0] for _, relu in pairs]
        split = helper.make_node("Split", [f"{name}/all", f"{name}/channels"], outputs, f"{name}/split", axis=1)
        replaced[first.name] = (merged, relu, split)
        dropped.update(node.name for pair in pairs for node in pair)
    _replace(model, replaced, dropped)


def _siblings(model: ModelProto, weights: dict[str, Array]) -> Iterator[list[tuple[NodeProto, NodeProto]]]:
    """Yield groups of convolutions that read the same tensor and differ only in their weights.

    Each convolution is paired with the ReLU that is the only reader of its output.
    """
    takers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            takers[name].append(node)
    alike: dict[tuple[str, ...], list[tuple[NodeProto, NodeProto]]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) != 3 or not {*node.input[1:]} <= weights.keys():
            continue
        readers = takers[node.output[0]]
        if [reader.op_type for reader in readers] == ["Relu"]:
            kernel = str(weights[node.input[1]].shape[1:])
            settings = sorted(str(attribute) for attribute in node.attribute)
            alike[(node.input[0], kernel, *settings)].append((node, readers[0]))
    yield from alike.values()


def _vectors(channels: Iterable[int]) -> int:
    return sum(-(-count // VECTOR) for count in channels)


def _spread_single_channels(model: ModelProto, weights: dict[str, Array], side_multiple: int) -> None:
    candidates = [node for node in model.graph.node if _is_to_one_channel(node, weights)]
    replaced: dict[str, Sequence[NodeProto]] = {}
    for node in _in_whole_blocks(model, candidates, side_multiple):
        weight = weights[node.input[1]]
        side = weight.shape[-1]
        wide = np.zeros((BLOCK * BLOCK, weight.shape[1], side + BLOCK - 1, side + BLOCK - 1), dtype=weight.dtype)
        for row in range(BLOCK):
            for col in range(BLOCK):
                wide[row * BLOCK + col, :, row : row + side, col : col + side] = weight[0]
        weights[f"{node.name}/block"] = wide
        inputs = [node.input[0], f"{node.name}/block"]
        if len(node.input) == 3:
            weights[f"{node.name}/block_bias"] = np.repeat(weights[node.input[2]], BLOCK * BLOCK)
            inputs.append(f"{node.name}/block_bias")
        block = helper.make_node(
            "Conv",
            inputs,
            [f"{node.output[0]}/block"],
            node.name,
            kernel_shape=wide.shape[2:],
            pads=[side // 2] * 4,
            strides=[BLOCK, BLOCK],
        )
        pixels = helper.make_node(
            "DepthToSpace", block.output, node.output, f"{node.name}/pixels", blocksize=BLOCK, mode="DCR"
        )
        replaced[node.name] = (block, pixels)
    _replace(model, replaced, set(replaced))


def _is_to_one_channel(node: NodeProto, weights: dict[str, Array]) -> bool:
    """Return whether a node is a size-preserving convolution to one channel with a kernel larger than 1 x 1."""
    if node.op_type != "Conv" or not {*node.input[1:]} <= weights.keys():
        return False
    channels, _, height, width = weights[node.input[1]].shape
    settings = {attribute.name: list(attribute.ints) for attribute in node.attribute if attribute.ints}
    return (
        channels == 1
        and height == width > 1
        and settings.get("pads") == [height // 2] * 4
        and set(settings.get("strides", [1])) == set(settings.get("dilations", [1])) == {1}
    )


def _in_whole_blocks(model: ModelProto, nodes: Sequence[NodeProto], side_multiple: int) -> list[NodeProto]:
    """Return the nodes whose output height and width are multiples of `BLOCK` for every image a stage accepts."""
    if not nodes:
        return []
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for index, node in enumerate(nodes):
        probe.graph.node.append(helper.make_node("Shape", [node.output[0]], [f"shape/{index}"]))
        probe.graph.output.append(helper.make_tensor_value_info(f"shape/{index}", TensorProto.INT64, (4,)))
    # An odd multiple of `side_multiple`: sizes divisible by `BLOCK` here are divisible for every accepted side.
    side = (SHORTEST_SIDE // side_multiple | 1) * side_multiple
    image = np.zeros((1, 1, side, side), dtype=np.float32)
    shapes = cpu_session(probe).run(None, {probe.graph.input[0].name: image})
    return [node for node, shape in zip(nodes, shapes, strict=True) if not any(length % BLOCK for length in shape[2:])]


def _replace(model: ModelProto, replaced: dict[str, Sequence[NodeProto]], dropped: set[str]) -> None:
    """Insert replacement nodes at the positions of the nodes they replace, and remove the dropped nodes."""
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.extend(replaced.get(node.name, ()))
        if node.name not in dropped:
            model.graph.node.append(node)
