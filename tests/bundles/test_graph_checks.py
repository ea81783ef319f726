"""A graph holds standard operators and their weights, or it is refused before any library sees it."""

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from cascade_rt.bundles import graph_arithmetic, graph_checks
from cascade_rt.bundles.bundle import EMBEDDED_NAMES, Bundle, EmbeddedName, embedded_bundle_path
from cascade_rt.bundles.graph_checks import OPERATORS, check_graph
from cascade_rt.common.tensors import PRECISIONS, STAGES, Precision, Stage
from cascade_rt.errors import BundleError
from tests.graph_files import constant_tensor, sound_model

SOUND = sound_model().SerializeToString()


def refusal(content: bytes) -> BundleError:
    with pytest.raises(BundleError) as caught:
        check_graph(content, "stage1_fp32.onnx")
    return caught.value


def changed(change: Callable[[ModelProto], object]) -> bytes:
    model = sound_model()
    change(model)
    return model.SerializeToString()


def set_node(field: str, value: object) -> Callable[[ModelProto], None]:
    return lambda model: setattr(model.graph.node[1], field, value)


def add_subgraph(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", sound_model().graph))


def add_function(model: ModelProto) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("own", "f", ["x"], ["y"], [node], [helper.make_opsetid("", 18)]))


def make_external(tensor: TensorProto, location: str = "../secret.bin") -> None:
    onnx.external_data_helper.set_external_data(tensor, location)


def external_attribute(model: ModelProto) -> None:
    tensor = constant_tensor()
    make_external(tensor)
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def add_sparse(model: ModelProto) -> None:
    values, indices = constant_tensor(), helper.make_tensor("i", TensorProto.INT64, [2], [0, 1])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def test_a_sound_graph_is_taken() -> None:
    check_graph(SOUND, "small.onnx")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_exported_graphs_are_taken(bundle: Bundle, stage: Stage, precision: Precision) -> None:
    check_graph((bundle.path / f"{stage}_{precision}.onnx").read_bytes(), "exported")


@pytest.mark.parametrize("name", EMBEDDED_NAMES)
def test_graphs_of_embedded_bundles_are_taken(name: EmbeddedName) -> None:
    for path in embedded_bundle_path(name).glob("*.onnx"):
        check_graph(path.read_bytes(), path.name)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (set_node("op_type", "If"), "uses the unsupported operator 'If'"),
        (set_node("op_type", "Loop"), "uses the unsupported operator 'Loop'"),
        (set_node("op_type", "RandomNormal"), "uses the unsupported operator 'RandomNormal'"),
        (set_node("op_type", ""), "uses the unsupported operator ''"),
        (set_node("op_type", "\x1b[31mRelu"), r"uses the unsupported operator '\\x1b\[31mRelu'"),
        (set_node("domain", "com.microsoft"), "uses 'Relu' of domain 'com.microsoft'"),
        (set_node("domain", "ai.onnx.ml"), r"of domain 'ai\.onnx\.ml'"),
        (set_node("overload", "mine"), "a node has a function overload"),
        (lambda model: model.opset_import.append(helper.make_opsetid("evil", 1)), "operators of domain 'evil'"),
        (add_function, "the model has local functions"),
        (lambda model: model.training_info.add(), "the model has training graphs"),
        (add_subgraph, "an attribute has a subgraph"),
        (add_sparse, "the graph has sparse weights"),
        (lambda model: model.graph.ClearField("node"), "has no nodes"),
        (lambda model: setattr(model.opset_import[0], "version", 1 << 40), "has version 1099511627776"),
        (lambda model: setattr(model, "ir_version", 1 << 40), "has version 1099511627776"),
        (lambda model: model.ClearField("graph"), "has 0 graphs"),
        (lambda model: model.graph.initializer[0].string_data.append(b"text"), "a tensor has strings"),
        (lambda model: model.graph.quantization_annotation.add(), "quantization annotations"),
    ],
)
def test_a_graph_that_holds_more_than_networks_need_is_refused(
    change: Callable[[ModelProto], object], complaint: str
) -> None:
    error = refusal(changed(change))
    assert error.code == "E_GRAPH"
    assert re.match(rf"stage1_fp32\.onnx: .*{complaint}.*; use a bundle exported by cascade-rt", str(error))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: make_external(model.graph.initializer[0]),
        lambda model: make_external(model.graph.initializer[0], "weights.safetensors"),
        lambda model: setattr(model.graph.initializer[0], "data_location", TensorProto.EXTERNAL),
        lambda model: model.graph.initializer[0].external_data.add(key="location", value="x"),
        external_attribute,
    ],
)
def test_data_in_another_file_is_refused_wherever_it_stands(change: Callable[[ModelProto], object]) -> None:
    assert refusal(changed(change)).code == "E_EXTERNAL_DATA"


def dividing(
    operator: str,
    dividend: onnx.TensorProto | None = None,
    divisor: onnx.TensorProto | None = None,
    *before: onnx.NodeProto,
) -> bytes:
    """A graph that divides; without constants the dividend is the image, the divisor what the nodes before make."""
    model = sound_model()
    names = [tensor.name if tensor is not None else other for tensor, other in ((dividend, "image"), (divisor, "d"))]
    model.graph.initializer.extend([tensor for tensor in (dividend, divisor) if tensor is not None])
    model.graph.node.extend([*before, helper.make_node(operator, names, ["quotient"])])
    return model.SerializeToString()


def integers(name: str, *values: int, kind: type[np.integer] = np.int32) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.array(values, kind), name)


def unpacked(name: str, *values: int) -> onnx.TensorProto:
    """Integers in the field of their own, not as raw bytes."""
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


@pytest.mark.parametrize("operator", ["Div", "Mod"])
@pytest.mark.parametrize(
    ("divisor", "before"),
    [
        (integers("d", 0), ()),
        (integers("d", 5, -1), ()),
        (integers("d", 0, kind=np.int64), ()),
        (unpacked("d", -1), ()),
        (None, (helper.make_node("Shape", ["image"], ["d"]),)),
        (None, (helper.make_node("Constant", [], ["d"], value_int=-1),)),
        (None, (helper.make_node("Cast", ["image"], ["d"], to=TensorProto.INT32),)),
        (None, (helper.make_node("MaxPool", ["image"], ["m", "d"], kernel_shape=[2, 2]),)),
        (None, ()),
    ],
)
def test_integers_divided_by_what_may_not_be_positive_are_refused(
    operator: str, divisor: onnx.TensorProto | None, before: tuple[onnx.NodeProto, ...]
) -> None:
    error = refusal(dividing(operator, integers("lowest", -(2**31)), divisor, *before))
    assert f"uses {operator} on possible integers with a divisor that is not a positive constant" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        dividing("Div", integers("lowest", -(2**31)), integers("d", 16)),
        dividing("Div", integers("lowest", 7, kind=np.int64), unpacked("d", 16, 2)),
        dividing("Div", None, None, helper.make_node("Constant", [], ["d"], value_float=0.0)),
        dividing("Div", None, None, helper.make_node("Cast", ["sums"], ["d"], to=TensorProto.FLOAT)),
        dividing("Div", None, None, helper.make_node("Relu", ["sums"], ["d"])),
    ],
)
def test_float_division_and_integer_division_by_positives_are_accepted(content: bytes) -> None:
    check_graph(content, "dividing")


@pytest.mark.parametrize(
    ("name", "value"),
    [("group", 0), ("group", -1), ("group", 1 << 40), ("strides", [0, 1]), ("dilations", [1, -1]), ("pads", [-9] * 4)],
)
def test_attributes_that_libraries_divide_by_are_positive(name: str, value: object) -> None:
    def change(model: ModelProto) -> None:
        model.graph.node[0].attribute.append(helper.make_attribute(name, value))

    model = sound_model()
    del model.graph.node[0].attribute[:]
    change(model)
    assert f"has a Conv whose {name} is not between" in str(refusal(model.SerializeToString()))


def test_tensors_of_one_name_are_refused() -> None:
    """Libraries take the last one; whoever judges the first one judges another graph."""
    assert "has two tensors with the same name" in str(
        refusal(changed(lambda model: model.graph.initializer.append(integers("weights", 0))))
    )


def test_what_returns_floats_and_what_keeps_the_type_is_as_onnx_says() -> None:
    floats = {"tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)"}
    for name in graph_arithmetic.FLOAT_OPERATORS:
        assert all(set(output.types) <= floats for output in onnx.defs.get_schema(name).outputs), name
    for name, sources in graph_arithmetic.TYPE_FROM_INPUT.items():
        schema = onnx.defs.get_schema(name)
        types = {schema.outputs[0].type_str, *(schema.inputs[index].type_str for index in sources)}
        assert len(types) == 1, name


def test_what_a_parser_would_merge_is_refused() -> None:
    """Two graphs in one model become one for a parser, the last of two names its only one."""
    assert "has 2 graphs" in str(refusal(SOUND + SOUND))
    node = b"\x22\x04Relu"
    twice = onnx.NodeProto.FromString(node + b"\x22\x02If")
    assert twice.op_type == "If"
    assert "has field 4 twice" in str(refusal(wrapped(node + b"\x22\x02If")))


def wrapped(node: bytes) -> bytes:
    """A model whose graph has this node; all lengths are below 128."""
    graph = bytes([0x0A, len(node)]) + node
    return bytes([0x3A, len(graph)]) + graph


def test_a_field_in_the_wrong_wire_type_is_refused() -> None:
    assert "is encoded as VARINT" in str(refusal(wrapped(b"\x20\x01")))


def test_fields_from_the_future_are_refused() -> None:
    assert "unknown field 99" in str(refusal(SOUND + b"\x98\x06\x01"))


@pytest.mark.parametrize(
    ("message", "proto"),
    [
        ("_MODEL", onnx.ModelProto),
        ("_OPSET", onnx.OperatorSetIdProto),
        ("_GRAPH", onnx.GraphProto),
        ("_NODE", onnx.NodeProto),
        ("_ATTRIBUTE", onnx.AttributeProto),
        ("_TENSOR", onnx.TensorProto),
    ],
)
def test_every_field_of_the_format_is_judged(message: str, proto: type[onnx.ModelProto]) -> None:
    """A field that a newer onnx has shows here first."""
    rules = getattr(graph_checks, message)
    judged = {*rules.wire_types, *rules.refused} | ({13} if message == "_TENSOR" else set())
    assert judged == {field.number for field in proto.DESCRIPTOR.fields}


def test_every_accepted_operator_is_standard_without_subgraphs() -> None:
    for name in OPERATORS:
        schema = onnx.defs.get_schema(name)
        assert schema.domain == ""
        assert all(each.type != onnx.defs.OpSchema.AttrType.GRAPH for each in schema.attributes.values()), name
        assert schema.node_determinism != onnx.defs.OpSchema.NodeDeterminism.NonDeterministic, name


@given(st.binary(max_size=300))
def test_garbage_is_refused_with_a_sentence(content: bytes) -> None:
    assert refusal(content).code in {"E_GRAPH", "E_EXTERNAL_DATA"}


@settings(max_examples=300)
@given(st.integers(0, len(SOUND) - 1), st.integers(0, 255))
def test_a_damaged_graph_is_accepted_only_if_onnx_reads_what_was_checked(position: int, value: int) -> None:
    content = bytearray(SOUND)
    content[position] = value
    try:
        check_graph(bytes(content), "damaged")
    except BundleError:
        return
    try:
        model = onnx.ModelProto.FromString(bytes(content))
    except DecodeError:
        return  # damaged in a part that no check opens, such as the type of an input
    assert not model.functions
    assert not model.training_info
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert {node.domain for node in model.graph.node} <= graph_checks.STANDARD_DOMAINS
    assert not [tensor for tensor in model.graph.initializer if tensor.external_data or tensor.data_location]
    assert not [a for node in model.graph.node for a in node.attribute if a.HasField("g") or a.graphs]


def test_too_many_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_checks, "MAX_NODES", 1)
    assert "has more than 1 nodes" in str(refusal(SOUND))


def test_the_weights_of_a_checked_graph_are_those_of_the_parser() -> None:
    model = onnx.ModelProto.FromString(SOUND)
    assert np.array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), np.ones((1, 1, 3, 3), np.float32))
