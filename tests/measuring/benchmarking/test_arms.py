"""The names of arms."""

import pytest

from cascade_rt.engines import BACKENDS
from cascade_rt.errors import UsageError
from cascade_rt.measuring.benchmarking.arms import Arm, all_arms, parse_arms


def test_arms_have_commas_between_them() -> None:
    assert parse_arms("onnxruntime, pytorch:fp32") == (Arm("onnxruntime"), Arm("pytorch", "fp32"))


@pytest.mark.parametrize("arm", all_arms(), ids=lambda arm: arm.name)
def test_every_arm_is_read_from_its_name(arm: Arm) -> None:
    assert parse_arms(arm.name) == (arm,)


def test_an_arm_may_leave_parts_of_a_scan_out() -> None:
    (arm,) = parse_arms("onnxruntime:fp32+z-search=4+body-box")
    assert (arm.search.first_every, arm.search.body_box) == (4, True)
    assert arm.name == "onnxruntime:fp32+z-search=4+body-box"


def test_every_backend_is_among_all_arms() -> None:
    assert {arm.backend for arm in all_arms()} == set(BACKENDS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("onnx", "unknown backend 'onnx'; choose from"),
        ("onnxruntime:int4", "unknown precision 'int4'; choose from"),
        ("onnxruntime:", "unknown precision ''"),
        ("", "unknown backend ''"),
        ("pytorch+z-search=x", "unknown option 'z-search=x'; choose from z-search=K, body-box"),
        ("pytorch+z-search=0", "first_every: must be at least 1, got 0"),
        ("pytorch,pytorch", "'pytorch' is listed twice"),
    ],
)
def test_an_unknown_arm_is_refused_with_the_choices(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_arms(text)
