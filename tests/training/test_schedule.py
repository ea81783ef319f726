"""S, I and J follow each other as the paper says."""

from dataclasses import replace

from cascade_rt.config import TrainConfig, train_preset
from cascade_rt.training.schedule import learning_rate, steps_by_epoch


def test_the_paper_trains_2_epochs_of_s_4_of_i_and_50_of_j() -> None:
    names = [step.name for step in steps_by_epoch(train_preset("paper"))]
    assert names == ["S"] * 2 + ["I"] * 4 + ["J"] * 50


def test_saliency_is_off_in_s_only_and_boxes_are_predicted_in_j_only() -> None:
    steps = {step.name: step for step in steps_by_epoch(TrainConfig(epochs=(1, 1, 1)))}
    assert [steps[name].use_saliency for name in "SIJ"] == [False, True, True]
    assert [steps[name].predicted_boxes for name in "SIJ"] == [False, False, True]


def test_a_constant_learning_rate_stays() -> None:
    assert {learning_rate(train_preset("paper"), iteration, 100) for iteration in range(100)} == {1e-5}


def test_the_poly_learning_rate_falls_from_the_start_to_almost_nothing() -> None:
    config = replace(TrainConfig(), schedule="poly", learning_rate=1.0)
    rates = [learning_rate(config, iteration, 100) for iteration in range(100)]
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert abs(rates[50] - 0.5**0.9) < 1e-12
