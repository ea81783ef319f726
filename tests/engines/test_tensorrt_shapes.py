"""What the TensorRT engine does with shapes, which needs no GPU."""

import numpy as np
import pytest

from cascade_rt.engines.tensorrt_engine import split_batch
from cascade_rt.engines.tensorrt_session import ShapeRange
from cascade_rt.errors import BackendUnavailableError, OutsideProfileError

PROFILE = ShapeRange((1, 1, 64, 64), (4, 1, 512, 640))


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (4, 1, 512, 640), (2, 1, 96, 640)])
def test_shapes_inside_the_profile_pass(shape: tuple[int, ...]) -> None:
    PROFILE.check("input 'hu'", shape)


@pytest.mark.parametrize("shape", [(5, 1, 64, 64), (1, 1, 48, 64), (1, 1, 528, 64), (1, 1, 64, 656), (1, 64, 64)])
def test_a_shape_outside_is_refused_with_the_allowed_range(shape: tuple[int, ...]) -> None:
    allowed = r"input 'hu' must have a shape from \[1, 1, 64, 64\] to \[4, 1, 512, 640\]"
    with pytest.raises(OutsideProfileError, match=allowed):
        PROFILE.check("input 'hu'", shape)


@pytest.mark.parametrize("kind", [ValueError, BackendUnavailableError])
def test_it_is_what_the_contract_promises_and_what_the_command_line_understands(kind: type[Exception]) -> None:
    assert issubclass(OutsideProfileError, kind)


@pytest.mark.parametrize(("count", "parts"), [(1, [1]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])])
def test_large_batches_are_cut_into_parts(count: int, parts: list[int]) -> None:
    image = np.arange(count, dtype=np.float32)
    split = split_batch({"hu": image}, 4)
    assert [len(part["hu"]) for part in split] == parts
    np.testing.assert_array_equal(np.concatenate([part["hu"] for part in split]), image)
