"""What is known to suffer in half precision, found by its place in the graph, whatever its values."""

from collections.abc import Callable, Iterator, Mapping

from onnx import ModelProto, NodeProto

_POINTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg"})
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
    """Who makes and who takes each tensor of a graph."""

    def __init__(self, graph: ModelProto) -> None:
        self.nodes = tuple(graph.graph.node)
        self.inputs = frozenset(value.name for value in graph.graph.input)
        self.outputs = frozenset(value.name for value in graph.graph.output)
        self.weights = frozenset(tensor.name for tensor in graph.graph.initializer)
        self._makers = {name: node for node in self.nodes for name in node.output}

    def maker(self, name: str) -> NodeProto | None:
        """The node that computes a tensor; none for inputs and weights."""
        return self._makers.get(name)

    def computed(self, node: NodeProto) -> list[str]:
        """The inputs of a node that are no weights."""
        return [name for name in node.input if name and name not in self.weights]


def windows(wiring: Wiring) -> Iterator[NodeProto]:
    """Arithmetic that brings an input into a range: from the input of the graph up to the first Clip."""
    return (node for path in _window_paths(wiring) for node in path)


def _window_paths(wiring: Wiring) -> Iterator[list[NodeProto]]:
    """Each Clip over an input of the graph, and the arithmetic before it, last node first."""
    for clip in wiring.nodes:
        if clip.op_type != "Clip":
            continue
        path, name = [clip], clip.input[0]
        while (node := wiring.maker(name)) and node.op_type in _POINTWISE and len(wiring.computed(node)) == 1:
            path.append(node)
            (name,) = wiring.computed(node)
        if name in wiring.inputs:
            yield path


def image_readers(wiring: Wiring) -> Iterator[NodeProto]:
    """What reads the image itself, an input of the graph or the window over it: the first convolutions.

    Soft tissue differs by little from pixel to pixel, and these convolutions are made of differences, so that they hand
    on what rounding the image loses, many times larger (docs/decisions/0011).
    """
    images = {path[0].output[0] for path in _window_paths(wiring)} | wiring.inputs
    return (node for node in wiring.nodes if images.intersection(node.input) and node.op_type not in ("Clip", "Shape"))


def softmaxes(wiring: Wiring) -> Iterator[NodeProto]:
    """Every softmax, and the matrix product that it is taken of: a sum over channels or over all positions."""
    for node in wiring.nodes:
        if node.op_type in ("LogSoftmax", "Softmax"):
            yield node
            product = wiring.maker(node.input[0])
            if product is not None and product.op_type == "MatMul":
                yield product


def probabilities(wiring: Wiring) -> Iterator[NodeProto]:
    """The sigmoid that ends a network, and all that is computed of its output.

    The maxima are compared with the same threshold; the saliency multiplies the image, and what rounding it loses, the
    convolutions that read the salient image hand on many times larger, as with the image itself.
    """
    of_probability: set[str] = set()
    for node in wiring.nodes:
        ends = node.op_type == "Sigmoid" and node.output[0] in wiring.outputs
        if ends or (of_probability.intersection(node.input) and node.op_type != "Shape"):
            of_probability.update(node.output)
            yield node


def sums_over_positions(wiring: Wiring) -> Iterator[NodeProto]:
    """Normalisations and sums whose terms are as many as an image has pixels."""
    return (node for node in wiring.nodes if node.op_type in _OVER_POSITIONS)


def resizes(wiring: Wiring) -> Iterator[NodeProto]:
    """Resampling, which computes positions from scales."""
    return (node for node in wiring.nodes if node.op_type in ("GridSample", "Resize"))


FP16_RULES: Mapping[str, Callable[[Wiring], Iterator[NodeProto]]] = {
    "window": windows,
    "image": image_readers,
    "softmax": softmaxes,
    "probability": probabilities,
    "sum": sums_over_positions,
    "resize": resizes,
}
"""Each known danger by the name of its rule."""


def made_of_lengths(wiring: Wiring, floats: frozenset[str]) -> Iterator[NodeProto]:
    """Arithmetic on the lengths of axes alone, such as the weights of an up-sampling: one number for each position.

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
