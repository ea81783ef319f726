"""The search drops what the task does not need, keeps what it needs, and ends."""

import numpy as np
import pytest
from onnx import ModelProto

from cascade_rt.errors import InputError, ParityError
from cascade_rt_export.conv_work import multiplications
from cascade_rt_export.half_precision import to_half
from cascade_rt_export.half_search import halves_if_same, same_masks, smallest_kept
from cascade_rt_export.keep_plan import KeptNode, plan_kept
from cascade_rt_export.value_ranges import observe_ranges
from tests.half_graphs import convolutions, half_weights

GRAPH = convolutions([1, 1, 1, 1, 1, 1], shrink=1)
PLAN = tuple(KeptNode(f"conv{index}", "large") for index in range(7))
ONES = {"x": np.ones((1, 1, 4, 4), dtype=np.float32)}


class Task:
    """Holds as long as these convolutions stay in float32; counts how often it is asked."""

    def __init__(self, *needed: int) -> None:
        self.needed = {f"w{index}" for index in needed}
        self.asked = 0

    def __call__(self, half: ModelProto) -> bool:
        self.asked += 1
        return not self.needed & half_weights(half)


@pytest.mark.parametrize("needed", [(), (0,), (3,), (6,), (1, 5), (0, 1, 2, 3, 4, 5, 6)])
def test_exactly_what_the_task_needs_stays(needed: tuple[int, ...]) -> None:
    found = smallest_kept(GRAPH, PLAN, Task(*needed))
    assert [node.name for node in found] == [f"conv{index}" for index in needed]


def test_the_search_stops_at_its_limit_and_keeps_undecided_nodes() -> None:
    task = Task(0)
    found = smallest_kept(GRAPH, PLAN, task, most_trials=4)
    assert task.asked == 4
    assert PLAN[0] in found
    assert len(found) > 1


def test_a_known_danger_is_dropped_as_a_whole_or_not_at_all() -> None:
    plan = tuple(KeptNode(node.name, "softmax" if node.name < "conv3" else "large") for node in PLAN)
    assert smallest_kept(GRAPH, plan, Task(1)) == plan[:3]


def test_what_no_trial_need_show_is_never_dropped() -> None:
    plan = tuple(KeptNode(node.name, "window") for node in PLAN[:2])
    task = Task()
    assert smallest_kept(GRAPH, plan, task) == plan
    assert task.asked == 1


def test_a_plan_that_does_not_hold_is_refused() -> None:
    with pytest.raises(ParityError, match="deploy the float32 graph"):
        smallest_kept(GRAPH, PLAN[:1], Task(3))


def test_masks_tell_an_overflow_from_a_plan_that_avoids_it() -> None:
    graph = convolutions([300, 300, 300], shrink=3e-8)
    plan = plan_kept(graph, observe_ranges(graph, [ONES]), multiplications(graph, ONES))
    holds = same_masks(graph, [ONES], "y")
    assert not holds(to_half(graph, ()))
    assert holds(to_half(graph, plan))


def test_of_a_measured_plan_only_what_does_overflow_stays() -> None:
    graph = convolutions([300, 100, 3], shrink=1e-5)
    plan = plan_kept(graph, observe_ranges(graph, [ONES]), multiplications(graph, ONES))
    found = smallest_kept(graph, plan, same_masks(graph, [ONES], "y"))
    assert [node.name for node in plan] == ["conv0", "conv1", "relu1", "conv2", "relu2", "conv3"]
    assert [node.name for node in found] == ["conv2", "relu2", "conv3"]


def test_inputs_in_which_nothing_is_found_prove_nothing() -> None:
    with pytest.raises(InputError, match="finds nothing"):
        same_masks(GRAPH, [{"x": np.zeros((1, 1, 4, 4), dtype=np.float32)}], "y")


NEAR_IMAGE = (
    KeptNode("conv0", "image"),
    KeptNode("relu0", "near"),
    KeptNode("conv1", "near"),
    KeptNode("conv3", "large"),
)


def test_the_image_is_read_in_halves_if_the_task_holds() -> None:
    assert halves_if_same(GRAPH, NEAR_IMAGE, Task(3)) == NEAR_IMAGE[3:]


def test_all_near_the_image_stays_if_the_task_needs_it() -> None:
    assert halves_if_same(GRAPH, NEAR_IMAGE, Task(1)) == NEAR_IMAGE
