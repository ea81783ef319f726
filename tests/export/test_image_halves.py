"""Convolutions in half precision that read an image in halves compute what they compute of the image itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from onnx import ModelProto, TensorProto

from cascade_rt_export.half_precision import to_half
from cascade_rt_export.half_rounding import rounding_graph
from cascade_rt_export.image_halves import PARTS, weight_halves
from cascade_rt_export.keep_plan import KeptNode, image_in_halves
from tests.half_graphs import half_weights, model, node, run

IMAGES = st_numpy.arrays(
    np.float32, (1, 1, 3, 3), elements=st.floats(-1000, 1000, width=32, allow_nan=False, allow_subnormal=False)
)
LEAST_DIGIT = 2.0**-25
"""Half the distance of the smallest numbers of float16: the error that remains however small a value is."""
ERROR = 2.0**-21


def first_convolution(weight: np.ndarray) -> ModelProto:
    weights = {"w": weight.astype(np.float32)}
    return model(
        [node("Conv", "x w", "conv"), node("Mul", "conv one", "y")], {**weights, "one": np.float32([1])}, rank=4
    )


def image_in(graph: ModelProto, image: np.ndarray) -> np.ndarray:
    """The halves of an image as the graph makes them: `[1, PARTS, row, col]`, here in float32."""
    rounding = rounding_graph(graph)
    rounding.graph.output[0].name = "x/halves"
    found: np.ndarray = run(rounding, {"x": image})["x/halves"]
    return found


@given(IMAGES)
@settings(max_examples=100, deadline=None)
def test_the_halves_add_up_to_the_image_to_21_bits(image: np.ndarray) -> None:
    high, low, again = image_in(to_half(first_convolution(np.ones((1, 1, 1, 1))), ()), image)[0]
    np.testing.assert_array_equal(high, again)
    assert (np.abs(high.astype(np.float64) + low - image[0, 0]) <= np.abs(image[0, 0]) * ERROR + LEAST_DIGIT).all()


@given(IMAGES)
@settings(max_examples=100, deadline=None)
def test_the_halves_of_a_weight_add_up_to_it(weight: np.ndarray) -> None:
    high, again, low = weight_halves(weight).astype(np.float64)[0]
    np.testing.assert_array_equal(high, again)
    assert (np.abs(high + low - weight[0, 0]) <= np.abs(weight[0, 0]) * ERROR + LEAST_DIGIT).all()


def test_the_difference_of_neighboring_pixels_survives() -> None:
    """What float16 takes from the image: here all of it."""
    edge = first_convolution(np.array([[[[1, -1]]]]))
    image = np.array([[[[0.7, 0.7001]]]], dtype=np.float32)
    expected = run(edge, {"x": image})["y"]
    np.testing.assert_allclose(run(rounding_graph(to_half(edge, ())), {"x": image})["y"], expected, rtol=2e-3)


def test_the_weights_are_in_half_precision_for_every_part() -> None:
    half = to_half(first_convolution(np.ones((2, 1, 1, 1))), ())
    assert half_weights(half) >= {"w"}
    stored = {tensor.name: list(tensor.dims) for tensor in half.graph.initializer}
    assert stored["w"] == [2, PARTS, 1, 1]


def test_an_image_that_several_convolutions_read_is_split_once() -> None:
    weights = {"w": np.ones((1, 1, 1, 1), dtype=np.float32), "v": np.full((1, 1, 1, 1), 2, dtype=np.float32)}
    nodes = [node("Conv", "x w", "first"), node("Conv", "x v", "second"), node("Add", "first second", "y")]
    half = to_half(model(nodes, weights, rank=4), ())
    assert sum(step.op_type == "Sub" for step in half.graph.node) == 1
    image = {"x": np.full((1, 1, 2, 2), 0.5, dtype=np.float32)}
    np.testing.assert_array_equal(run(rounding_graph(half), image)["y"], 1.5)


def test_a_weight_that_a_kept_convolution_reads_too_is_whole_for_it() -> None:
    weights = {"w": np.full((1, 1, 1, 1), 1 + 1e-4, dtype=np.float32)}
    nodes = [node("Conv", "x w", "first"), node("Conv", "x w", "second"), node("Sub", "first second", "y")]
    half = to_half(model(nodes, weights, rank=4), [KeptNode("first", "image"), KeptNode("y", "large")])
    found = run(rounding_graph(half), {"x": np.ones((1, 1, 2, 2), dtype=np.float32)})["y"]
    assert (np.abs(found) < 1e-3).all()


@pytest.mark.parametrize("pooling", ["AveragePool", "MaxPool"])
def test_a_pooled_image_is_read_in_halves(pooling: str) -> None:
    weights = {"w": np.ones((1, 1, 1, 1), dtype=np.float32)}
    nodes = [node(pooling, "x", "pooled", kernel_shape=[2, 2], strides=[2, 2]), node("Conv", "pooled w", "y")]
    half = to_half(model(nodes, weights, rank=4), [KeptNode("pooled", "image")])
    assert "pooled/halves" in {name for step in half.graph.node for name in step.output}


def test_a_kept_convolution_reads_the_image_itself() -> None:
    half = to_half(first_convolution(np.ones((1, 1, 1, 1))), [KeptNode("conv", "weight")])
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds["w"] == TensorProto.FLOAT


def test_grouped_convolutions_stay_as_planned() -> None:
    weights = {"w": np.ones((1, 1, 1, 1), dtype=np.float32)}
    graph = model([node("Conv", "x w", "y", group=2)], weights, rank=4)
    plan = (KeptNode("y", "image"),)
    assert image_in_halves(graph, plan) == plan


def test_only_what_reads_the_image_and_what_is_near_leave_the_plan() -> None:
    graph = first_convolution(np.ones((1, 1, 1, 1)))
    plan = (KeptNode("conv", "image"), KeptNode("near", "near"), KeptNode("product", "image"), KeptNode("y", "large"))
    assert image_in_halves(graph, plan) == plan[2:]
    assert image_in_halves(graph, [KeptNode("conv", "weight")]) == (KeptNode("conv", "weight"),)
