"""Dice, sensitivity and specificity as the paper's Eq. 18 to 20 define them, and as documented where those do not."""

import math
import statistics
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade_rt.common.metrics import Confusion, average, average_scores, confusion, dice, pool

Array = npt.NDArray[Any]

EMPTY, FULL = np.zeros(6, dtype=bool), np.ones(6, dtype=bool)
# By hand: TP 2, FP 1, FN 3, TN 4.
PREDICTION = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=bool)
TRUTH = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 0, 0]], dtype=bool)


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    return draw(hnp.arrays(bool, shape)), draw(hnp.arrays(bool, shape))


def counted(prediction: Array, truth: Array) -> dict[tuple[bool, bool], int]:
    """Voxels by (predicted, true), one at a time."""
    counts = {(p, t): 0 for p in (False, True) for t in (False, True)}
    for pair in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        counts[pair] += 1
    return counts


def share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


# Cases computed by hand


def test_voxels_are_counted_by_prediction_and_truth() -> None:
    assert confusion(PREDICTION, TRUTH) == Confusion(2, 1, 3, 4)


def test_dice_is_twice_the_common_part_over_both() -> None:
    assert confusion(PREDICTION, TRUTH).dice == 2 * 2 / (3 + 5)


def test_sensitivity_is_the_part_of_the_truth_that_was_found() -> None:
    assert confusion(PREDICTION, TRUTH).sensitivity == 2 / 5


def test_specificity_is_the_part_of_the_background_left_alone() -> None:
    assert confusion(PREDICTION, TRUTH).specificity == 4 / 5


def test_dice_of_two_masks_is_that_of_their_confusion() -> None:
    assert dice(PREDICTION, TRUTH) == 0.5


@pytest.mark.parametrize("mask", [TRUTH, FULL, np.eye(7, dtype=bool)])
def test_mask_agrees_with_itself(mask: Array) -> None:
    assert dice(mask, mask) == 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_masks_may_be_numbers(dtype: type) -> None:
    assert confusion(PREDICTION.astype(dtype), TRUTH.astype(dtype)) == Confusion(2, 1, 3, 4)


def test_counts_of_a_large_mask_do_not_overflow() -> None:
    large = Confusion(2**62, 2**62, 2**62, 2**62)
    assert (large + large).dice == 0.5


def test_masks_of_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks must have equal shapes, got \(6,\) and \(1, 6\)"):
        confusion(EMPTY, EMPTY[None])


# Where the equations do not say


def test_two_empty_masks_have_dice_one() -> None:
    assert dice(EMPTY, EMPTY) == 1.0


def test_empty_prediction_of_something_has_dice_zero() -> None:
    assert dice(EMPTY, FULL) == 0.0


def test_prediction_of_nothing_there_has_dice_zero() -> None:
    assert dice(FULL, EMPTY) == 0.0


@pytest.mark.parametrize("prediction", [EMPTY, FULL])
def test_sensitivity_without_positives_is_nan(prediction: Array) -> None:
    assert math.isnan(confusion(prediction, EMPTY).sensitivity)


@pytest.mark.parametrize("prediction", [EMPTY, FULL])
def test_specificity_without_background_is_nan(prediction: Array) -> None:
    assert math.isnan(confusion(prediction, FULL).specificity)


def test_sensitivity_of_an_empty_prediction_is_zero() -> None:
    assert confusion(EMPTY, FULL).sensitivity == 0.0


def test_specificity_of_a_full_prediction_is_zero() -> None:
    assert confusion(FULL, EMPTY).specificity == 0.0


# Any masks


@given(mask_pairs())
def test_counts_are_those_of_counting_one_by_one(masks: tuple[Array, Array]) -> None:
    counts = counted(*masks)
    expected = Confusion(counts[True, True], counts[True, False], counts[False, True], counts[False, False])
    assert confusion(*masks) == expected


@given(mask_pairs())
def test_dice_is_that_of_counting_one_by_one(masks: tuple[Array, Array]) -> None:
    counts = counted(*masks)
    errors = counts[True, False] + counts[False, True]
    expected = share(2 * counts[True, True], 2 * counts[True, True] + errors) if masks[0].any() or masks[1].any() else 1
    assert dice(*masks) == pytest.approx(expected)


@given(mask_pairs())
def test_sensitivity_is_that_of_counting_one_by_one(masks: tuple[Array, Array]) -> None:
    counts = counted(*masks)
    expected = share(counts[True, True], counts[True, True] + counts[False, True])
    assert confusion(*masks).sensitivity == pytest.approx(expected, nan_ok=True)


@given(mask_pairs())
def test_specificity_is_that_of_counting_one_by_one(masks: tuple[Array, Array]) -> None:
    counts = counted(*masks)
    expected = share(counts[False, False], counts[False, False] + counts[True, False])
    assert confusion(*masks).specificity == pytest.approx(expected, nan_ok=True)


@given(mask_pairs())
def test_dice_does_not_depend_on_which_mask_is_the_truth(masks: tuple[Array, Array]) -> None:
    assert dice(*masks) == dice(*reversed(masks))


@given(mask_pairs(), mask_pairs())
def test_adding_pools_two_cases_as_if_they_were_one(first: tuple[Array, Array], second: tuple[Array, Array]) -> None:
    pooled = [np.concatenate((a.ravel(), b.ravel())) for a, b in zip(first, second, strict=True)]
    assert confusion(*first) + confusion(*second) == confusion(*pooled)


# Means


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=8))
def test_an_average_is_over_the_values_that_are_defined(values: list[float]) -> None:
    defined = [value for value in values if not math.isnan(value)]
    found = average(values)
    assert (found.count, found.undefined) == (len(defined), len(values) - len(defined))
    assert found.mean == pytest.approx(statistics.fmean(defined) if defined else math.nan, nan_ok=True)
    spread = statistics.stdev(defined) if len(defined) > 1 else math.nan
    assert found.deviation == pytest.approx(spread, nan_ok=True, abs=1e-12)


@given(st.lists(mask_pairs(), max_size=5))
def test_a_pool_is_one_image_of_all_voxels(pairs: list[tuple[Array, Array]]) -> None:
    whole = [np.concatenate([np.zeros(0, dtype=bool), *(pair[part].ravel() for pair in pairs)]) for part in (0, 1)]
    assert pool(confusion(*pair) for pair in pairs) == confusion(*whole)


def test_predicted_and_true_voxels_are_counted() -> None:
    assert (confusion(PREDICTION, TRUTH).found, confusion(PREDICTION, TRUTH).positive) == (3, 5)


SAMPLES = [confusion(TRUTH, TRUTH), confusion(PREDICTION, TRUTH), confusion(EMPTY, EMPTY), confusion(FULL, EMPTY)]


def test_scores_of_positive_samples_omit_samples_without_the_target() -> None:
    scores = average_scores(SAMPLES, "positive")
    assert (scores.dice.mean, scores.dice.count, scores.both_empty) == (0.75, 2, 0)


def test_scores_of_all_samples_count_what_is_empty_and_undefined() -> None:
    scores = average_scores(SAMPLES, "all")
    assert (scores.dice.mean, scores.dice.count, scores.both_empty) == ((1 + 0.5 + 1 + 0) / 4, 4, 1)
    assert (scores.sensitivity.mean, scores.sensitivity.undefined) == (pytest.approx((1 + 0.4) / 2), 2)


def test_scores_of_no_samples_are_undefined() -> None:
    assert math.isnan(average_scores([], "all").dice.mean)
