"""Rules that find nodes known to lose accuracy in half precision, by graph structure and regardless of values."""

from collections.abc import Callable, Iterator, Mapping

from onnx import ModelProto, NodeProto

_POINTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg"})
_POOLINGS = frozenset({"AveragePool", "MaxPool"})
_OVER_POSITIONS = frozenset(
    {
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
    }
)


class Wiring:
    """The connections of a graph: its inputs, outputs and weights, and the node that produces each tensor."""

    def __init__(self, graph: ModelProto) -> None:
        self.nodes = tuple(graph.graph.node)
        self.inputs = frozenset(value.name for value in graph.graph.input)
        self.outputs = frozenset(value.name for value in graph.graph.output)
        self.weights = frozenset(tensor.name for tensor in graph.graph.initializer)
        self._makers = {name: node for node in self.nodes for name in node.output}

    def maker(self, name: str) -> NodeProto | None:
        """Return the node that computes a tensor, or None for inputs and weights."""
        return self._makers.get(name)

    def computed(self, node: NodeProto) -> list[str]:
        """Return the inputs of a node that are not weights."""
        return [name for name in node.input if name and name not in self.weights]


def windows(wiring: Wiring) -> Iterator[NodeProto]:
    """Yield the arithmetic that windows a graph input: from the input up to and including the first Clip."""
    return (node for path in _window_paths(wiring) for node in path)


def _window_paths(wiring: Wiring) -> Iterator[list[NodeProto]]:
    """Yield each Clip applied to a graph input with the pointwise arithmetic before it, last node first."""
    for clip in wiring.nodes:
        if clip.op_type != "Clip":
            continue
        path, name = [clip], clip.input[0]
        while (node := wiring.maker(name)) and node.op_type in _POINTWISE and len(wiring.computed(node)) == 1:
            path.append(node)
            (name,) = wiring.computed(node)
        if name in wiring.inputs:
            yield path


def images(wiring: Wiring) -> frozenset[str]:
    """Return the names of the tensors that are an image: graph inputs, raw or windowed, and what pools them."""
    found = {path[0].output[0] for path in _window_paths(wiring)} | wiring.inputs
    for node in wiring.nodes:
        if node.op_type in _POOLINGS and node.input[0] in found:
            found.update(node.output)
    return frozenset(found)


def image_convolutions(wiring: Wiring) -> Iterator[NodeProto]:
    """Yield the convolutions that read an image and that could read it in halves: with weights of the graph, no groups.

    In half precision they do so (`image_halves`).
    """
    shown = images(wiring)
    for node in wiring.nodes:
        grouped = any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)
        if node.op_type == "Conv" and node.input[0] in shown and node.input[1] in wiring.weights and not grouped:
            yield node


def image_readers(wiring: Wiring) -> Iterator[NodeProto]:
    """Yield the nodes that read the image itself, raw, windowed or pooled: the first convolutions.

    Soft tissue differs little from pixel to pixel, and these convolutions compute differences, so they greatly amplify
    the rounding error of the image (docs/decisions/0011).
    """
    shown = images(wiring)
    return (node for node in wiring.nodes if shown.intersection(node.input) and node.op_type not in ("Clip", "Shape"))


def softmaxes(wiring: Wiring) -> Iterator[NodeProto]:
    """Yield every softmax and the matrix product it is applied to: a sum over channels or over all positions."""
    for node in wiring.nodes:
        if node.op_type in ("LogSoftmax", "Softmax"):
            yield node
            product = wiring.maker(node.input[0])
            if product is not None and product.op_type == "MatMul":
                yield product


def probabilities(wiring: Wiring) -> Iterator[NodeProto]:
    """Yield the final sigmoid of a network and everything computed from its output.

    The maxima are compared with the same threshold. The saliency multiplies the image, and the convolutions that read
    the salient image amplify its rounding error, as they do for the image itself.
    """
    of_probability: set[str] = set()
    for node in wiring.nodes:
        ends = node.op_type == "Sigmoid" and node.output[0] in wiring.outputs
        if ends or (of_probability.intersection(node.input) and node.op_type != "Shape"):
            of_probability.update(node.output)
            yield node


def sums_over_positions(wiring: Wiring) -> Iterator[NodeProto]:
    """Yield normalizations and sums with as many terms as an image has pixels."""
    return (node for node in wiring.nodes if node.op_type in _OVER_POSITIONS)


def resizes(wiring: Wiring) -> Iterator[NodeProto]:
    """Yield resampling nodes, which compute positions from scales."""
    return (node for node in wiring.nodes if node.op_type in ("GridSample", "Resize"))


FP16_RULES: Mapping[str, Callable[[Wiring], Iterator[NodeProto]]] = {
    "window": windows,
    "image": image_readers,
    "softmax": softmaxes,
    "probability": probabilities,
    "sum": sums_over_positions,
    "resize": resizes,
}
"""The structural rules by name."""


def made_of_lengths(wiring: Wiring, floats: frozenset[str]) -> Iterator[NodeProto]:
    """Yield arithmetic on axis lengths only, such as the weights of an upsampling: one number per position.

    Args:
        wiring: The graph.
        floats: Names of its float tensors.
    """
    found: set[str] = set()
    for node in wiring.nodes:
        of_data = [name for name in wiring.computed(node) if name in floats and name not in found]
        if not of_data and any(name in floats for name in node.output):
            found.update(node.output)
            yield node
