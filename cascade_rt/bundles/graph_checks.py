"""Validation of an ONNX graph before it is passed to any library.

A graph is data, but not harmless data. It can reference other files (external data), operators from libraries loaded
for it (custom domains), functions and subgraphs that hide both from a check of the nodes, and infinite loops. The
networks here need none of these. So this is an allowlist: every field of the format, domain, operator and attribute
type that is not known to be needed is rejected.

The bytes are read with `cascade_rt.bundles.protobuf_wire`, because the onnx package is not a runtime dependency and a
complete parser is not needed to reject a graph. Field numbers are those of onnx.proto3
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3); the tests compare them with the onnx package.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cascade_rt.bundles.graph_arithmetic import check_arithmetic
from cascade_rt.bundles.protobuf_wire import Field, WireError, WireType, read_fields
from cascade_rt.errors import BundleError

MAX_NODES = 20_000
MAX_INITIALIZERS = 20_000
MAX_VERSION = 100
"""Maximum version of the format or its operators, far above any existing one; limited as OpenVINO counts down from
it."""

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

# fmt: off
OPERATORS = frozenset({
    # networks
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "MatMul",
    "MaxPool", "Resize",
    # activations
    "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "LogSoftmax", "Mish", "PRelu", "Relu",
    "Selu", "Sigmoid", "Softmax", "Softplus", "Tanh",
    # arithmetic and comparison
    "Abs", "Add", "And", "Ceil", "Div", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Round", "Sign", "Sqrt", "Sub",
    "Sum", "Where",
    # reductions
    "ArgMax", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
    # shapes and types
    "Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather",
    "Identity", "Pad", "Range", "Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
})
# fmt: on
"""Operators of the standard domain that a graph may use: deterministic functions from tensors to tensors.

None of them runs a subgraph (If, Loop, Scan), draws random numbers, or handles text, images or sequences.
"""


@dataclass(frozen=True, slots=True)
class _Message:
    """The fields that a message may have."""

    name: str
    wire_types: Mapping[int, tuple[WireType, ...]]
    refused: Mapping[int, str]
    """Known fields that are rejected, with descriptions for messages."""


_BYTES, _VARINT = (WireType.BYTES,), (WireType.VARINT,)
_FLOATS = (WireType.BYTES, WireType.FIXED32)
_INTEGERS = (WireType.BYTES, WireType.VARINT)
_DOUBLES = (WireType.BYTES, WireType.FIXED64)

_MODEL_VERSION, _MODEL_GRAPH, _MODEL_OPSETS = 1, 7, 8
_MODEL = _Message(
    "the model",
    {
        _MODEL_VERSION: _VARINT,
        2: _BYTES,  # producer_name
        3: _BYTES,  # producer_version
        4: _BYTES,  # domain
        5: _VARINT,  # model_version
        6: _BYTES,  # doc_string
        _MODEL_GRAPH: _BYTES,
        _MODEL_OPSETS: _BYTES,
        14: _BYTES,  # metadata_props
    },
    {20: "training graphs", 25: "local functions", 26: "a multi-device configuration"},
)
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_OPSET = _Message("the operator set", {_OPSET_DOMAIN: _BYTES, _OPSET_VERSION: _VARINT}, {})

_GRAPH_NODES, _GRAPH_INITIALIZERS = 1, 5
_GRAPH = _Message(
    "the graph",
    {
        _GRAPH_NODES: _BYTES,
        2: _BYTES,  # name
        _GRAPH_INITIALIZERS: _BYTES,
        10: _BYTES,  # doc_string
        11: _BYTES,  # input
        12: _BYTES,  # output
        13: _BYTES,  # value_info
        16: _BYTES,  # metadata_props
    },
    {14: "quantization annotations", 15: "sparse weights"},
)
_NODE_OPERATOR, _NODE_ATTRIBUTES, _NODE_DOMAIN = 4, 5, 7
_NODE = _Message(
    "a node",
    {
        1: _BYTES,  # input
        2: _BYTES,  # output
        3: _BYTES,  # name
        _NODE_OPERATOR: _BYTES,
        _NODE_ATTRIBUTES: _BYTES,
        6: _BYTES,  # doc_string
        _NODE_DOMAIN: _BYTES,
        9: _BYTES,  # metadata_props
    },
    {8: "a function overload", 10: "a multi-device configuration"},
)
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE = _Message(
    "an attribute",
    {
        1: _BYTES,  # name
        2: (WireType.FIXED32,),  # f
        3: _VARINT,  # i
        4: _BYTES,  # s
        _ATTRIBUTE_TENSOR: _BYTES,
        7: _FLOATS,
        8: _INTEGERS,
        9: _BYTES,  # strings
        _ATTRIBUTE_TENSORS: _BYTES,
        13: _BYTES,  # doc_string
        20: _VARINT,  # type
    },
    {
        6: "a subgraph",
        11: "subgraphs",
        14: "a type",
        15: "types",
        21: "a reference to a function attribute",
        22: "sparse values",
        23: "sparse values",
    },
)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_TENSOR = _Message(
    "a tensor",
    {
        1: _INTEGERS,  # dims
        2: _VARINT,  # data_type
        4: _FLOATS,  # float_data
        5: _INTEGERS,  # int32_data
        7: _INTEGERS,  # int64_data
        8: _BYTES,  # name
        9: _BYTES,  # raw_data
        10: _DOUBLES,  # double_data
        11: _INTEGERS,  # uint64_data
        12: _BYTES,  # doc_string
        _TENSOR_LOCATION: _VARINT,
        16: _BYTES,  # metadata_props
    },
    {3: "a segment", 6: "strings"},
)


class _RefusedError(ValueError):
    """What is wrong with a graph; `code` becomes the code of the BundleError."""

    def __init__(self, message: str, code: str = "E_GRAPH") -> None:
        super().__init__(message)
        self.code = code


def check_graph(content: bytes, shown: str) -> None:
    """Reject an ONNX graph that contains anything but standard operators and their weights.

    Args:
        content: The ONNX file.
        shown: Name of the graph, for messages.

    Raises:
        BundleError: The content is not an ONNX graph (`E_GRAPH`); it references data in another file
            (`E_EXTERNAL_DATA`); or it has operators from other domains or not in `OPERATORS`, functions, subgraphs,
            unknown fields, or integer divisions by a value that may be 0 (`E_GRAPH`).
    """
    try:
        _check_model(memoryview(content))
    except _RefusedError as error:
        raise BundleError(f"{shown}: {error}; use a bundle exported by cascade-rt", code=error.code) from error
    except (WireError, UnicodeDecodeError) as error:
        raise BundleError(f"{shown}: is not an ONNX graph ({error}); copy the bundle again", code="E_GRAPH") from error


def _check_model(model: memoryview) -> None:
    graphs = 0
    for entry in _known_fields(_MODEL, model):
        if entry.number == _MODEL_VERSION:
            _check_version(entry)
        elif entry.number == _MODEL_OPSETS:
            fields = tuple(_known_fields(_OPSET, entry.content))
            for each in fields:
                if each.number == _OPSET_VERSION:
                    _check_version(each)
            domain = _text_of(_OPSET, fields, _OPSET_DOMAIN)
            if domain not in STANDARD_DOMAINS:
                raise _RefusedError(
                    f"needs operators of domain {_quoted(domain)}, but only standard ones are supported"
                )
        elif entry.number == _MODEL_GRAPH:
            graphs += 1
            _check_nodes_and_weights(entry.content)
    if graphs != 1:
        raise _RefusedError(f"has {graphs} graphs, expected 1")


def _check_version(version: Field) -> None:
    if version.integer > MAX_VERSION:
        raise _RefusedError(f"has version {version.integer}, which does not exist")


def _check_nodes_and_weights(graph: memoryview) -> None:
    nodes = initializers = 0
    for entry in _known_fields(_GRAPH, graph):
        if entry.number == _GRAPH_NODES:
            nodes += 1
            _check_node(entry.content)
        elif entry.number == _GRAPH_INITIALIZERS:
            initializers += 1
            _check_tensor(entry.content)
        if nodes > MAX_NODES or initializers > MAX_INITIALIZERS:
            raise _RefusedError(f"has more than {MAX_NODES} nodes or {MAX_INITIALIZERS} weights")
    if not nodes:
        raise _RefusedError("has no nodes")
    try:
        check_arithmetic(graph)
    except WireError:
        raise
    except ValueError as error:
        raise _RefusedError(str(error)) from error


def _check_node(node: memoryview) -> None:
    fields = tuple(_known_fields(_NODE, node))
    operator, domain = (_text_of(_NODE, fields, number) for number in (_NODE_OPERATOR, _NODE_DOMAIN))
    if domain not in STANDARD_DOMAINS:
        raise _RefusedError(
            f"uses {_quoted(operator)} of domain {_quoted(domain)}, but only standard ones are supported"
        )
    if operator not in OPERATORS:
        raise _RefusedError(f"uses the unsupported operator {_quoted(operator)}")
    for entry in fields:
        if entry.number == _NODE_ATTRIBUTES:
            _check_attribute(entry.content)


def _check_attribute(attribute: memoryview) -> None:
    for entry in _known_fields(_ATTRIBUTE, attribute):
        if entry.number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _check_tensor(entry.content)


def _check_tensor(tensor: memoryview) -> None:
    for entry in read_fields(tensor):
        if entry.number == _TENSOR_EXTERNAL or (entry.number == _TENSOR_LOCATION and entry.integer != 0):
            raise _RefusedError(
                "a tensor is stored in another file (external data), which is never read", "E_EXTERNAL_DATA"
            )
    for _ in _known_fields(_TENSOR, tensor):
        pass


def _known_fields(message: _Message, content: memoryview) -> Iterator[Field]:
    """Yield the fields of a message. Raises _RefusedError if one is not allowed or has the wrong wire type."""
    for entry in read_fields(content):
        expected = message.wire_types.get(entry.number)
        if expected is None:
            what = message.refused.get(entry.number, f"unknown field {entry.number}")
            raise _RefusedError(f"{message.name} has {what} (unsupported)")
        if entry.wire_type not in expected:
            raise _RefusedError(f"field {entry.number} of {message.name} is encoded as {entry.wire_type.name}")
        yield entry


def _text_of(message: _Message, fields: Iterable[Field], number: int) -> str:
    """Return the text of a field that may occur at most once, or an empty string if it is missing."""
    found = [entry.content for entry in fields if entry.number == number]
    if len(found) > 1:
        # Parsers take the last one, so reading the first one would check a different graph.
        raise _RefusedError(f"{message.name} has field {number} twice")
    return bytes(found[0]).decode("utf-8") if found else ""


def _quoted(text: str) -> str:
    """Quote a name from the file, truncated and without terminal control characters."""
    return ascii(text[:60])
