"""What the TensorRT engine does with shapes, which needs no GPU."""

import numpy as np
import pytest

from cascade_rt.engines.tensorrt_engine import batch_parts
from cascade_rt.engines.tensorrt_session import ShapeRange, choose_profile
from cascade_rt.errors import BackendUnavailableError, OutsideProfileError

RANGE = ShapeRange((1, 1, 64, 64), (4, 1, 512, 640))
PROFILES = ({"hu": RANGE}, {"hu": ShapeRange((1, 1, 64, 64), (1, 1, 2048, 2048))})


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (4, 1, 512, 640), (2, 1, 96, 640)])
def test_a_range_takes_the_shapes_inside(shape: tuple[int, ...]) -> None:
    assert RANGE.takes(shape)


@pytest.mark.parametrize("shape", [(5, 1, 64, 64), (1, 1, 48, 64), (1, 1, 528, 64), (1, 1, 64, 656), (1, 64, 64)])
def test_a_range_takes_no_shape_outside(shape: tuple[int, ...]) -> None:
    assert not RANGE.takes(shape)


@pytest.mark.parametrize(("shape", "index"), [((4, 1, 512, 512), 0), ((1, 1, 512, 512), 0), ((1, 1, 528, 528), 1)])
def test_the_first_profile_that_takes_a_shape_is_chosen(shape: tuple[int, ...], index: int) -> None:
    assert choose_profile(PROFILES, {"hu": shape}) == index


def test_all_inputs_must_lie_in_the_same_profile() -> None:
    small, large = ShapeRange((1,), (4,)), ShapeRange((5,), (9,))
    with pytest.raises(OutsideProfileError, match=r"got 'a' in shape \[2\] and 'b' in shape \[7\]"):
        choose_profile(({"a": small, "b": small}, {"a": large, "b": large}), {"a": (2,), "b": (7,)})


@pytest.mark.parametrize("kind", [ValueError, BackendUnavailableError])
def test_outside_profile_error_is_a_value_error_and_a_backend_error(kind: type[Exception]) -> None:
    assert issubclass(OutsideProfileError, kind)


@pytest.mark.parametrize(("count", "parts"), [(1, [1]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])])
def test_large_batches_are_cut_into_parts(count: int, parts: list[int]) -> None:
    batch = np.arange(count)
    cut = [batch[rows] for rows in batch_parts(count, 4)]
    assert [len(part) for part in cut] == parts
    np.testing.assert_array_equal(np.concatenate(cut), batch)
