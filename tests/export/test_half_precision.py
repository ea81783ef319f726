"""Half precision: what would overflow stays in float32, the rest does not, and the outside sees no difference."""

import copy
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from cascade_rt.common.comparison import compare
from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt.config import Variant, load_config
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines.base import Array
from cascade_rt.errors import BundleError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt_export.conv_work import half_share
from cascade_rt_export.half_precision import half_precision_graph, to_half
from cascade_rt_export.half_rounding import rounding_graph
from cascade_rt_export.keep_plan import KeptNode
from cascade_rt_export.onnx_graph import onnx_from_stage
from tests.half_graphs import Converted, convolutions, half_weights, model, node, run

OUTPUT_ERROR = 0.005
"""Largest error of an output; a rounding to float16 is 5e-4 of a value, and a network has a hundred in a row."""

ONES = {"x": np.ones((1, 1, 4, 4), dtype=np.float32)}


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest, stages: Mapping[Stage, Converted]) -> Converted:
    return stages[request.param]


def casts(graph: ModelProto) -> Iterator[tuple[str, str, int]]:
    """Input, output and target type of every cast."""
    return ((step.input[0], step.output[0], step.attribute[0].i) for step in graph.graph.node if step.op_type == "Cast")


def test_a_plan_keeps_overflowing_values_in_float32() -> None:
    graph = convolutions([300, 300, 300], shrink=1e-6)
    plain = run(rounding_graph(to_half(graph, ())), ONES)["y"]
    planned = half_precision_graph(graph, [ONES], source="ones")
    rescued = run(rounding_graph(planned.graph), ONES)["y"]
    assert not np.isfinite(plain).any()
    np.testing.assert_allclose(rescued, run(graph, ONES)["y"], rtol=1e-3)
    assert [entry["rule"] for entry in planned.kept] == ["image", "large"]


def test_onnxruntimes_own_converter_overflows_between_kept_nodes() -> None:
    """The reason for a converter of our own."""
    graph = convolutions([300, 300, 300], shrink=1e-6)
    planned = half_precision_graph(graph, [ONES], source="ones")
    names = [name for entry in planned.kept for name in entry["nodes"]]
    theirs = convert_float_to_float16(copy.deepcopy(graph), keep_io_types=True, node_block_list=names)
    assert not np.isfinite(run(theirs, ONES)["y"]).any()
    np.testing.assert_allclose(run(planned.graph, ONES)["y"], run(graph, ONES)["y"], rtol=1e-3)


def test_onnxruntime_alone_hides_the_overflow() -> None:
    """The reason for `rounding_graph`; when this fails, the graphs themselves can be run instead."""
    graph = convolutions([300, 300, 300], shrink=1e-3)
    half = to_half(graph, ())
    assert np.isfinite(run(half, ONES)["y"]).all()
    assert not np.isfinite(run(rounding_graph(half), ONES)["y"]).any()


def test_a_plan_keeps_overflowing_weights_in_float32() -> None:
    graph = convolutions([1, 1e5], shrink=1.0)
    faint = {"x": ONES["x"] * 1e-3}
    planned = half_precision_graph(graph, [faint], source="a thousandth")
    assert not np.isfinite(run(to_half(graph, ()), faint)["y"]).any()
    np.testing.assert_allclose(run(planned.graph, faint)["y"], run(graph, faint)["y"], rtol=1e-3)
    assert {"rule": "weight", "reason": planned.kept[-1]["reason"], "nodes": ["conv1"]} in planned.kept


def test_a_weight_that_vanishes_is_0_without_a_plan_and_right_with_it() -> None:
    graph = convolutions([1e-9], shrink=1e3)
    planned = half_precision_graph(graph, [ONES], source="ones")
    assert not run(rounding_graph(to_half(graph, ())), ONES)["y"].any()
    np.testing.assert_allclose(run(rounding_graph(planned.graph), ONES)["y"], 1e-6, rtol=1e-3)


def test_a_safe_graph_keeps_only_readers_of_the_image_in_float32() -> None:
    graph = convolutions([0.5, 3], shrink=0.25)
    planned = half_precision_graph(graph, [ONES], source="ones")
    assert [(entry["rule"], entry["nodes"]) for entry in planned.kept] == [("image", ["conv0"])]
    assert half_weights(planned.graph) == {"w1", "w2"}


def test_a_value_between_kept_nodes_is_never_rounded() -> None:
    graph = convolutions([1 + 1e-4, 3], shrink=1)
    kept = [KeptNode(step.name, "large") for step in graph.graph.node]
    np.testing.assert_array_equal(run(to_half(graph, kept), ONES)["y"], run(graph, ONES)["y"])
    assert not list(casts(to_half(graph, kept)))


def test_a_weight_that_both_kinds_of_node_read_is_exact_for_the_kept_one() -> None:
    value = np.array([1 + 1e-4], dtype=np.float32)
    graph = model([node("Mul", "x w", "first"), node("Mul", "first w", "y")], {"w": value})
    half = to_half(graph, [KeptNode("first", "large")])
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in half.graph.initializer}
    assert stored == {"w": value, "w/half": np.ones(1, dtype=np.float16)}


def test_a_node_that_is_not_in_the_graph_cannot_be_kept() -> None:
    with pytest.raises(BundleError, match="no nodes \\['elsewhere'\\]"):
        to_half(convolutions([1], shrink=1), [KeptNode("elsewhere", "large")])


def test_nodes_without_names_are_refused() -> None:
    graph = convolutions([1], shrink=1)
    graph.graph.node[0].name = ""
    with pytest.raises(BundleError, match="without a unique name"):
        to_half(graph, ())


def test_a_graph_already_in_half_precision_is_refused() -> None:
    with pytest.raises(BundleError, match="start from the float32 graph"):
        to_half(to_half(convolutions([1], shrink=1), ()), ())


def test_an_operator_without_half_precision_stays_in_float32() -> None:
    weights = {"start": np.float32(0).reshape(()), "step": np.float32(1).reshape(())}
    nodes = [node("ReduceSum", "x", "count", keepdims=0), node("Range", "start count step", "y")]
    found = run(to_half(model(nodes, weights), ()), {"x": np.ones(3, dtype=np.float32)})
    assert found["y"].tolist() == [0, 1, 2]


def assert_within_rounding(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    for name in expected:
        assert compare(expected[name], found[name]).max_error < OUTPUT_ERROR


def test_outputs_are_those_of_float32_up_to_rounding(stage: Converted) -> None:
    expected = run(stage.single, stage.inputs)
    assert_within_rounding(run(rounding_graph(stage.half.graph), stage.inputs), expected)
    assert next(iter(expected.values())).std() > 0.01


def test_nearly_all_convolutions_are_in_half_precision(stage: Converted) -> None:
    assert half_share(stage.half.graph, stage.inputs) >= 0.95


def test_inputs_and_outputs_are_the_same_tensors(stage: Converted) -> None:
    for field in ("input", "output"):
        assert list(getattr(stage.half.graph.graph, field)) == list(getattr(stage.single.graph, field))


def test_the_opset_and_the_number_of_operations_are_the_same(stage: Converted) -> None:
    graphs = (stage.single, stage.half.graph)
    counts = [Counter(step.op_type for step in graph.graph.node if step.op_type != "Cast") for graph in graphs]
    assert counts[0] == counts[1]
    assert [list(graph.opset_import) for graph in graphs] == [[onnx.helper.make_opsetid("", 18)]] * 2


def test_no_value_is_cast_and_cast_back(stage: Converted) -> None:
    made = {output: (source, kind) for source, output, kind in casts(stage.half.graph)}
    for source, _, kind in casts(stage.half.graph):
        assert made.get(source, ("", kind))[1] == kind
    sources = Counter((source, kind) for source, _, kind in casts(stage.half.graph))
    assert not [entry for entry, count in sources.items() if count > 1 and entry[1] == TensorProto.FLOAT16]


def test_the_table_names_nodes_of_the_float32_graph_once(stage: Converted) -> None:
    names = [name for entry in stage.half.kept for name in entry["nodes"]]
    assert set(names) <= {step.name for step in stage.single.graph.node}
    assert len(set(names)) == len(names)


def test_the_known_dangers_are_kept(stages: Mapping[Stage, Converted]) -> None:
    rules = {stage: {entry["rule"] for entry in converted.half.kept} for stage, converted in stages.items()}
    assert rules == {
        "stage1": {"window", "image", "near", "probability"},
        "stage2": {"image", "near", "softmax", "probability", "lengths"},
    }


def test_all_that_is_computed_of_the_organ_probability_stays_in_float32(stages: Mapping[Stage, Converted]) -> None:
    kept = {name for entry in stages["stage1"].half.kept for name in entry["nodes"]}
    of_probability = {"organ_prob"}
    for step in stages["stage1"].single.graph.node:
        if of_probability.intersection(step.input) and step.op_type != "Shape":
            of_probability.update(step.output)
            assert step.name in kept, step.name
    assert {"row_max", "col_max", "salient"} <= of_probability


def test_table_and_calibration_are_small_plain_values(stage: Converted) -> None:
    document = {"kept": stage.half.kept, "calibration": stage.half.calibration}
    text = json.dumps(document)
    assert json.loads(text) == document
    assert len(text) < 10_000


def test_the_same_graph_and_inputs_give_the_same_bytes(stage: Converted) -> None:
    kept = [KeptNode(name, entry["rule"]) for entry in stage.half.kept for name in entry["nodes"]]
    assert to_half(stage.single, kept).SerializeToString() == stage.half.graph.SerializeToString()


def test_padding_is_0_in_the_windowed_image(stages: Mapping[Stage, Converted]) -> None:
    padded = {"hu": np.full((1, 1, 64, 64), -32768, dtype=np.float32)}
    beyond = {"hu": np.full((1, 1, 64, 64), 1e6, dtype=np.float32)}
    for hu in (padded, beyond):
        converted = stages["stage1"]
        assert_within_rounding(run(rounding_graph(converted.half.graph), hu), run(converted.single, hu))


@pytest.mark.parametrize("variant", ["u", "m"])
def test_a_stage_without_a_network_has_no_convolutions_to_halve(variant: Variant) -> None:
    cascade, _ = load_config(variant=variant)
    graph = onnx_from_stage(CascadeModel(replace(cascade, base_width=8)), "stage1")
    feeds = {"hu": make_phantom(31, (2, 64, 64)).hu.astype(np.float32)[:, None]}
    half = half_precision_graph(graph, [feeds], source="a phantom")
    assert half_share(half.graph, feeds) is None
    assert np.ptp(run(half.graph, feeds)["salient"]) > 0.5
