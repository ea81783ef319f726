"""S, I and J follow each other as the paper says."""

from dataclasses import replace

import pytest

from cascade_rt.config import TrainConfig
from cascade_rt.training.schedule import STEPS, begins_with_transfer, has_boundary_loss, learning_rate, steps_by_epoch


def test_the_paper_trains_2_epochs_of_s_4_of_i_and_50_of_j() -> None:
    names = [step.name for step in steps_by_epoch(TrainConfig())]
    assert names == ["S"] * 2 + ["I"] * 4 + ["J"] * 50


def test_saliency_is_off_in_s_only_and_boxes_are_predicted_in_j_only() -> None:
    steps = {step.name: step for step in steps_by_epoch(TrainConfig(epochs=(1, 1, 1)))}
    assert [steps[name].use_saliency for name in "SIJ"] == [False, True, True]
    assert [steps[name].predicted_boxes for name in "SIJ"] == [False, False, True]


def test_stages_trained_apart_stay_in_s_for_as_many_epochs() -> None:
    steps = steps_by_epoch(TrainConfig(epochs=(1, 2, 3), joint=False))
    assert [step.name for step in steps] == ["S"] * 6


def test_stage_2_takes_over_stage_1_when_s_ends() -> None:
    config = TrainConfig(epochs=(2, 1, 3))
    assert [begins_with_transfer(config, epoch) for epoch in range(6)] == [False, False, True, False, False, False]


@pytest.mark.parametrize("changes", [{"transfer": False}, {"joint": False}])
def test_without_transfer_or_joint_training_nothing_is_taken_over(changes: dict[str, bool]) -> None:
    config = TrainConfig(epochs=(2, 1, 3), **changes)  # type: ignore[arg-type]
    assert not any(begins_with_transfer(config, epoch) for epoch in range(6))


@pytest.mark.parametrize(("first", "expected"), [("S", "SIJ"), ("I", "IJ"), ("J", "J")])
def test_the_boundary_loss_joins_at_its_first_step_and_stays(first: str, expected: str) -> None:
    config = replace(TrainConfig(), boundary_from=first)  # type: ignore[arg-type]
    assert [step.name for step in STEPS if has_boundary_loss(step, config)] == list(expected)


def test_a_boundary_weight_of_0_turns_the_boundary_loss_off() -> None:
    assert not any(has_boundary_loss(step, TrainConfig(boundary_weight=0)) for step in STEPS)


def test_a_constant_learning_rate_stays() -> None:
    assert {learning_rate(TrainConfig(), iteration, 100) for iteration in range(100)} == {1e-5}


def test_the_poly_learning_rate_falls_from_the_start_to_almost_nothing() -> None:
    config = replace(TrainConfig(), schedule="poly", learning_rate=1.0)
    rates = [learning_rate(config, iteration, 100) for iteration in range(100)]
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert abs(rates[50] - 0.5**0.9) < 1e-12
