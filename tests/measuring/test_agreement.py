"""How far two engines agree, counted and pooled."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade_rt.measuring.agreement import (
    MaskAgreement,
    bootstrap_interval,
    mask_agreement,
    max_errors,
    paired_difference,
)

labels = hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2))


def outputs(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(value, dtype=np.float32) for name, value in values.items()}


@given(labels)
def test_mask_agrees_with_itself(mask: np.ndarray) -> None:
    assert mask_agreement(mask, mask.copy()) == MaskAgreement(voxels=60, different=0)


@given(labels, labels)
def test_voxels_with_another_label_are_counted(first: np.ndarray, second: np.ndarray) -> None:
    pairs = zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)
    assert mask_agreement(first, second).different == sum(one != other for one, other in pairs)


def test_pancreas_taken_for_tumor_is_a_difference() -> None:
    assert mask_agreement(np.array([1, 1], np.uint8), np.array([1, 2], np.uint8)) == MaskAgreement(2, 1)


@given(labels, labels, labels, labels)
def test_adding_pools_two_scans_as_if_they_were_one(
    first: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> None:
    pooled = mask_agreement(np.concatenate((first, third)), np.concatenate((second, fourth)))
    assert mask_agreement(first, second) + mask_agreement(third, fourth) == pooled


def test_difference_is_told_per_hundred_thousand_voxels() -> None:
    assert MaskAgreement(voxels=2_000_000, different=3).per_100_000 == 0.15


@pytest.mark.parametrize("shape", [(1, 4), (4,), (2, 5)])
def test_masks_of_unequal_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"masks must have equal shapes, got \(2, 4\) and "):
        mask_agreement(np.zeros((2, 4), np.uint8), np.zeros(shape, np.uint8))


def test_error_is_the_largest_absolute_difference() -> None:
    assert max_errors(outputs(prob=[0.5, 0.75, 0.0]), outputs(prob=[0.5, 0.25, 0.25])) == {"prob": 0.5}


def test_each_output_has_its_own_error() -> None:
    found = max_errors(outputs(prob=[1.0], salient=[0.0]), outputs(prob=[0.5], salient=[2.0]))
    assert found == {"prob": 0.5, "salient": 2.0}


@pytest.mark.parametrize("value", [[math.nan, 0.0], [0.0, math.nan]])
def test_error_is_nan_where_the_output_holds_one(value: list[float]) -> None:
    assert math.isnan(max_errors(outputs(prob=value), outputs(prob=[0.0, 0.5]))["prob"])


def test_error_is_nan_where_the_reference_holds_one() -> None:
    assert math.isnan(max_errors(outputs(prob=[0.0]), outputs(prob=[math.nan]))["prob"])


def test_outputs_of_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        max_errors(outputs(prob=[0.5]), outputs(prob=[0.5, 0.5]))


def test_output_that_is_missing_is_not_passed_over() -> None:
    with pytest.raises(KeyError, match="salient"):
        max_errors(outputs(prob=[1.0]), outputs(prob=[1.0], salient=[0.0]))


# Paired differences

VALUES = {"a": 0.5, "b": 0.75, "c": 1.0}
BASELINE = {"a": 0.5, "b": 1.0, "c": 0.5}


def test_a_difference_is_value_minus_baseline_of_the_same_case() -> None:
    found = paired_difference(VALUES, dict(reversed(BASELINE.items())))
    assert (found.count, found.mean) == (3, pytest.approx((0 - 0.25 + 0.5) / 3))


def test_the_worst_case_is_the_one_furthest_below_its_baseline() -> None:
    found = paired_difference(VALUES, BASELINE)
    assert (found.worst_case, found.worst) == ("b", -0.25)


def test_the_interval_is_that_of_the_differences() -> None:
    assert paired_difference(VALUES, BASELINE, seed=3).interval == bootstrap_interval([0, -0.25, 0.5], seed=3)


def test_without_a_case_nothing_is_told() -> None:
    found = paired_difference({}, {})
    assert (found.count, found.worst_case, math.isnan(found.mean), math.isnan(found.worst)) == (0, None, True, True)


def test_a_case_that_only_one_of_them_has_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"cases must be the same, got \['a'\] and \['b'\]"):
        paired_difference({"a": 1.0}, {"b": 1.0})


few = st.lists(st.floats(-1, 1), min_size=2, max_size=6)


@settings(max_examples=30, deadline=None)
@given(few, st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_interval(values: list[float], seed: int) -> None:
    intervals = [bootstrap_interval(values, seed=seed, resamples=50) for _ in range(2)]
    assert intervals[0] == intervals[1]


@settings(max_examples=30, deadline=None)
@given(few)
def test_an_interval_lies_within_the_values(values: list[float]) -> None:
    low, high = bootstrap_interval(values, resamples=50)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_another_seed_gives_another_interval() -> None:
    values = list(np.random.default_rng(0).normal(size=20))
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_the_interval_of_equal_values_is_that_value() -> None:
    assert bootstrap_interval([0.25] * 4) == (0.25, 0.25)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_fewer_than_two_values_have_no_interval(values: list[float]) -> None:
    assert all(math.isnan(end) for end in bootstrap_interval(values))


def test_the_interval_is_that_of_scipy() -> None:
    from scipy import stats

    values = np.random.default_rng(5).exponential(size=25)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(6)
    ).confidence_interval
    assert bootstrap_interval(list(values)) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(list(random.normal(0.25, 1.0, 40)), resamples=300)
        covered += low <= 0.25 <= high
    assert 0.88 <= covered / 200 <= 0.99
