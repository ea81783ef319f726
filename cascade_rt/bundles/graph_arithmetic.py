"""Arithmetic in an ONNX graph that would crash the process: integer division by 0, and of the lowest integer by -1.

Float division is always defined, but these integer divisions raise a CPU exception, and its signal kills the process
without an error message. So integers may be divided only by positive constants, which is all that exported graphs do,
and the attributes by which libraries divide internally must be positive.

Float types are propagated through the graph from its inputs and weights; a tensor of unknown type may hold integers.
The graph must name each tensor once and produce it before it is used, as exported graphs do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cascade_rt.bundles.protobuf_wire import Field, WireType, read_fields, read_varints

LARGEST_COUNT = 1 << 16
"""Maximum group count, stride, pad and similar."""

# fmt: off
FLOAT_OPERATORS = frozenset({
    "AveragePool", "BatchNormalization", "Ceil", "Conv", "ConvTranspose", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "HardSigmoid", "HardSwish", "InstanceNormalization",
    "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "Mean", "Mish", "Reciprocal", "Round",
    "Selu", "Sigmoid", "Softmax", "Softplus", "Sqrt", "Sum", "Tanh",
})
"""Operators that return only floats."""
TYPE_FROM_INPUT: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys((
        "Abs", "Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Max", "Min", "Neg", "Pad",
        "Pow", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Relu", "Reshape", "Resize", "Sign", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    ), (0,)),
    **dict.fromkeys(("Add", "Div", "Gemm", "MatMul", "Mod", "Mul", "PRelu", "Range", "Sub"), (0, 1)),
    "CastLike": (1,),
    "Where": (1, 2),
}
"""Operators whose outputs have the type of the inputs at these indices, which all have the same type."""
# fmt: on
_REARRANGING = frozenset({"Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"})
_DIVIDING = frozenset({"Div", "Mod"})
_COUNTS = frozenset({"blocksize", "group", "num_groups", "num_outputs"})
"""Scalar attributes that libraries divide by."""
_STEPS = frozenset({"dilations", "kernel_shape", "strides"})
"""List attributes that libraries divide by."""
_FLOAT_TYPES = frozenset({1, 10, 11, 16})
"""float32, float16, float64, bfloat16 in `TensorProto.DataType`."""
_INTEGER_TYPES = {2: "<u1", 3: "<i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 12: "<u4", 13: "<u8"}


@dataclass(slots=True)
class _Known:
    """What is known about the tensors of a graph."""

    names: set[str] = field(default_factory=set)
    floats: set[str] = field(default_factory=set)
    positive: set[str] = field(default_factory=set)
    """Integer constants whose values are all positive."""

    def add(self, name: str, *, is_float: bool, is_positive: bool = False) -> None:
        """Record a tensor."""
        if name in self.names:
            raise ValueError("has two tensors with the same name")
        if name:
            self.names.add(name)
        self.floats |= {name} if is_float else set()
        self.positive |= {name} if is_positive else set()


def check_arithmetic(graph: memoryview) -> None:
    """Reject a graph that may divide integers by a value that is not positive.

    Args:
        graph: The bytes of an `onnx.GraphProto`.

    Raises:
        ValueError: The graph may do so, or names a tensor twice. The message says where.
    """
    known = _Known()
    nodes = []
    for entry in read_fields(graph):
        if entry.number == 1:
            nodes.append(entry.content)
        elif entry.number == 5:
            is_float, is_positive = _constant(entry.content)
            known.add(_text(entry.content, 8), is_float=is_float, is_positive=is_positive)
        elif entry.number == 11:
            known.add(_text(entry.content, 1), is_float=_input_type(entry.content) in _FLOAT_TYPES)
    for node in nodes:
        _follow(node, known)


def _follow(node: memoryview, known: _Known) -> None:
    """Check a node and record its outputs."""
    entries = tuple(read_fields(node))
    inputs, outputs = (
        [bytes(entry.content).decode() for entry in entries if entry.number == number] for number in (1, 2)
    )
    operator = _text(node, 4)
    attributes = _attributes(entries)
    _check_counts(operator, attributes)
    is_float, is_positive = _result(operator, inputs, attributes, known)
    if operator in _DIVIDING and not is_float and not (len(inputs) == 2 and inputs[1] in known.positive):
        raise ValueError(f"uses {operator} on possible integers with a divisor that is not a positive constant")
    for number, name in enumerate(outputs):
        # The second output of MaxPool holds integer indices. All other operators here have outputs of a single type.
        known.add(name, is_float=is_float and not (operator == "MaxPool" and number), is_positive=is_positive)


def _result(
    operator: str, inputs: Sequence[str], attributes: Mapping[str, memoryview], known: _Known
) -> tuple[bool, bool]:
    """Return whether a node returns floats, and whether it returns positive integer constants."""
    if operator == "Constant":
        return _constant_of_node(attributes)
    if operator == "Cast":
        return "to" in attributes and _integer(attributes["to"], 3) in _FLOAT_TYPES, False
    if operator == "ConstantOfShape":
        return "value" not in attributes or _constant(_content(attributes["value"], 5))[0], False
    if operator in FLOAT_OPERATORS or operator == "MaxPool":
        return True, False
    sources = [inputs[index] for index in TYPE_FROM_INPUT.get(operator, ()) if index < len(inputs)]
    is_positive = operator in _REARRANGING and bool(inputs) and inputs[0] in known.positive
    return any(name in known.floats for name in sources), is_positive


def _constant_of_node(attributes: Mapping[str, memoryview]) -> tuple[bool, bool]:
    """Like `_constant`, for a Constant node; nothing is known about one with several attributes."""
    if len(attributes) != 1:
        return False, False
    ((name, attribute),) = attributes.items()
    if name == "value":
        return _constant(_content(attribute, 5))
    if name == "value_int":
        return False, 0 < _integer(attribute, 3) < 1 << 63
    return name in ("value_float", "value_floats"), False


def _constant(tensor: memoryview) -> tuple[bool, bool]:
    """Return whether a tensor holds floats, and whether it holds only positive integers."""
    kind = _integer(tensor, 2)
    if kind not in _INTEGER_TYPES:
        return kind in _FLOAT_TYPES, False
    values = _integers(tensor, np.dtype(_INTEGER_TYPES[kind]))
    return False, values is not None and len(values) > 0 and bool((values > 0).all())


def _integers(tensor: memoryview, dtype: np.dtype[np.integer]) -> npt.NDArray[np.integer] | None:
    """Return the values of an integer tensor, or None if they are in several fields or in one not supported here."""
    entries = [entry for entry in read_fields(tensor) if entry.number in (5, 7, 9, 11)]
    if not entries or len({entry.number for entry in entries}) != 1:
        return None
    if entries[0].number == 9:
        raw = entries[0].content
        return None if len(entries) > 1 or len(raw) % dtype.itemsize else np.frombuffer(raw, dtype)
    # Two's complement with 64 bits, whatever the type.
    numbers = [number for entry in entries for number in _varints(entry)]
    return np.array(numbers, np.uint64).view(np.int64)


def _check_counts(operator: str, attributes: Mapping[str, memoryview]) -> None:
    for name, attribute in attributes.items():
        if name in _COUNTS:
            counts: Sequence[int] = [_integer(attribute, 3)]
        elif name in _STEPS or (name == "pads" and operator != "Pad"):
            counts = [each for entry in read_fields(attribute) if entry.number == 8 for each in _varints(entry)]
        else:
            continue
        least = 0 if name == "pads" else 1
        if not all(least <= count <= LARGEST_COUNT for count in counts):
            raise ValueError(f"has a {operator} whose {name} is not between {least} and {LARGEST_COUNT}")


def _attributes(entries: Sequence[Field]) -> dict[str, memoryview]:
    attributes: dict[str, memoryview] = {}
    for entry in entries:
        if entry.number == 5:
            name = _text(entry.content, 1)
            if name in attributes:
                raise ValueError("has a node with two attributes with the same name")
            attributes[name] = entry.content
    return attributes


def _input_type(value_info: memoryview) -> int:
    """Return the `TensorProto.DataType` of an input, or 0 if it is not a tensor."""
    return _integer(_content(_content(value_info, 2), 1), 1)


def _single(message: memoryview, number: int) -> Field | None:
    """Return a field that may occur at most once: parsers would take the last duplicate, or merge them."""
    found = [entry for entry in read_fields(message) if entry.number == number]
    if len(found) > 1:
        raise ValueError(f"has field {number} twice, expected once")
    return found[0] if found else None


def _content(message: memoryview, number: int) -> memoryview:
    entry = _single(message, number)
    return message[:0] if entry is None else entry.content


def _text(message: memoryview, number: int) -> str:
    return bytes(_content(message, number)).decode()


def _integer(message: memoryview, number: int) -> int:
    entry = _single(message, number)
    return 0 if entry is None else entry.integer


def _varints(entry: Field) -> list[int]:
    """Return the numbers of a repeated field, packed or unpacked."""
    return [entry.integer] if entry.wire_type is WireType.VARINT else list(read_varints(entry.content))
