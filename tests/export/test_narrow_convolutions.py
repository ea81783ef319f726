"""Narrow convolutions fill the vectors of a processor, and every result stays what it was."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt_export.cpu_session import cpu_session
from cascade_rt_export.narrow_convolutions import fill_vectors
from tests.narrow_graphs import graph_of

SIDES = ((64, 64), (80, 112), (144, 64))


def filled(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    fill_vectors(copy)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def largest_difference(first: ModelProto, second: ModelProto) -> float:
    random = np.random.default_rng(0)
    name, worst = first.graph.input[0].name, 0.0
    sessions = cpu_session(first), cpu_session(second)
    for rows, cols in SIDES:
        feeds = {name: random.normal(size=(2, 1, rows, cols)).astype(np.float32)}
        for one, other in zip(*(session.run(None, feeds) for session in sessions), strict=True):
            assert one.shape == other.shape
            worst = max(worst, float(np.abs(one - other).max()))
    return worst


def counts(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_siblings_that_fit_a_vector_become_one() -> None:
    model = graph_of(siblings=(4, 4, 8))
    assert counts(filled(model))["Conv"] == counts(model)["Conv"] - 2
    assert largest_difference(model, filled(model)) < 1e-5


def test_siblings_that_fill_their_vectors_stay() -> None:
    model = graph_of(siblings=(16, 32))
    assert counts(filled(model)) == counts(model)


@pytest.mark.parametrize("kernel", [3, 7])
def test_a_convolution_to_one_channel_computes_blocks_of_pixels(kernel: int) -> None:
    model = graph_of(single_kernel=kernel)
    assert counts(filled(model))["DepthToSpace"] == 1
    assert largest_difference(model, filled(model)) < 1e-5


def test_a_map_that_need_not_divide_into_blocks_stays() -> None:
    model = graph_of(single_kernel=3, poolings=4)
    assert counts(filled(model)) == counts(model)
    assert largest_difference(model, filled(model)) == 0.0


@pytest.mark.parametrize("stage", STAGES)
def test_the_stages_compute_what_they_computed(stage: Stage) -> None:
    model = onnx.load(read_bundle(embedded_bundle_path("phantom")).graph(stage))
    assert largest_difference(model, filled(model)) < 1e-5
