"""The ranges inside a graph are those of its values, over all inputs."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.errors import BundleError, InputError
from cascade_rt_export.value_ranges import ValueRange, observe_ranges
from tests.half_graphs import model, node


def scaling(factor: float) -> ModelProto:
    """Multiplies, and keeps what is positive."""
    nodes = [node("Mul", "x factor", "scaled"), node("Relu", "scaled", "y")]
    return model(nodes, {"factor": np.array([factor], dtype=np.float32)})


def feeds(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, dtype=np.float32)}


def test_the_largest_value_is_the_largest_input_or_output_magnitude() -> None:
    ranges = observe_ranges(scaling(100), [feeds(-7, 3, 0)])
    assert {name: seen.largest for name, seen in ranges.items()} == {"x": 7, "scaled": 700, "y": 300}


def test_zeros_are_neither_counted_nor_subnormal() -> None:
    ranges = observe_ranges(scaling(1), [feeds(-1, 0, 1e-5, 6.2e-5)])
    assert ranges["x"] == ValueRange(largest=1, nonzero=3, subnormal=1)
    assert ranges["y"].subnormal_share == pytest.approx(1 / 2)


def test_a_tensor_of_zeros_has_no_subnormal_share() -> None:
    assert observe_ranges(scaling(1), [feeds(0, 0)])["y"].subnormal_share == 0


def test_values_that_vanish_in_half_precision_are_subnormal_too() -> None:
    assert observe_ranges(scaling(1e-12), [feeds(1, -1)])["scaled"].subnormal_share == 1


def test_several_inputs_are_pooled() -> None:
    ranges = observe_ranges(scaling(1), iter([feeds(5, 1e-6), feeds(2, 3, 4)]))
    assert ranges["y"] == ValueRange(largest=5, nonzero=5, subnormal=1)


def test_inputs_are_taken_one_by_one() -> None:
    taken = []

    def inputs():
        for value in (1.0, 2.0):
            taken.append(value)
            yield feeds(value)
        raise StopAsyncIteration

    with pytest.raises(StopAsyncIteration):
        observe_ranges(scaling(1), inputs())
    assert taken == [1, 2]


def test_no_input_is_refused() -> None:
    with pytest.raises(InputError, match="pass at least one"):
        observe_ranges(scaling(1), [])


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_nan_is_refused(value: float) -> None:
    with pytest.raises(BundleError, match="contains NaN or infinity"):
        observe_ranges(scaling(1), [feeds(1, value, 2)])


def test_every_float_tensor_gets_a_range_and_the_graph_is_unchanged(bundle: Bundle) -> None:

    graph = onnx.load(bundle.graph("stage1"))
    before = graph.SerializeToString()
    ranges = observe_ranges(graph, [{"hu": np.full((1, 1, 64, 64), -32768, dtype=np.float32)}])
    assert ranges.keys() == {"hu", *(name for step in graph.graph.node for name in step.output)}
    assert ranges["hu"].largest == 32768
    assert graph.SerializeToString() == before
