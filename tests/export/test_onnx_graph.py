"""Exported graphs are small, self-contained, dynamic, and say nothing of the machine they were made on."""

from pathlib import Path

import onnx
import pytest

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import STAGE_SPECS, STAGES, Stage


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return request.param  # type: ignore[no-any-return]


def test_the_full_checker_accepts_the_graph(bundle: Bundle, stage: Stage) -> None:
    onnx.checker.check_model(bundle.graph(stage), full_check=True)


def test_it_is_opset_18_of_the_standard_domain_without_functions(bundle: Bundle, stage: Stage) -> None:
    graph = onnx.load(bundle.graph(stage))
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    assert not graph.functions


def test_its_weights_are_inside_the_file(bundle: Bundle, stage: Stage) -> None:
    graph = onnx.load(bundle.graph(stage), load_external_data=False)
    assert graph.graph.initializer
    assert not [tensor.name for tensor in graph.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]


def test_its_inputs_and_outputs_are_those_of_the_spec(bundle: Bundle, stage: Stage) -> None:
    graph = onnx.load(bundle.graph(stage)).graph
    spec = STAGE_SPECS[stage]
    for values, tensors in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
        found = [
            (value.name, tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim))
            for value in values
        ]
        assert found == [(tensor.name, tensor.shape) for tensor in tensors]


def test_batch_norms_that_follow_a_convolution_are_folded_into_it(bundle: Bundle) -> None:
    counts = {stage: [node.op_type for node in onnx.load(bundle.graph(stage)).graph.node] for stage in STAGES}
    assert counts["stage1"].count("BatchNormalization") == 0
    # Two in each focusing module follow a subtraction and an addition.
    assert counts["stage2"].count("BatchNormalization") == 8


def test_it_holds_no_path_of_the_exporting_machine(bundle: Bundle, stage: Stage) -> None:
    content = bundle.graph(stage).read_bytes()
    for trace in (str(Path(onnx.__file__).parents[1]), str(Path(__file__).parents[2]), "site-packages", ".py"):
        assert trace.encode() not in content
