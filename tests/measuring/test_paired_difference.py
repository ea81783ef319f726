"""How far two engines lie apart over the same cases, and how sure that is."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rt.measuring.paired_difference import bootstrap_interval, paired_difference

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


def test_without_cases_nothing_is_reported() -> None:
    found = paired_difference({}, {})
    assert (found.count, found.worst_case, math.isnan(found.mean), math.isnan(found.worst)) == (0, None, True, True)


def test_a_case_that_only_one_of_them_has_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"cases must be the same, got \['a'\] and \['b'\]"):
        paired_difference({"a": 1.0}, {"b": 1.0})


few = st.lists(st.floats(-1, 1), min_size=2, max_size=6)


@settings(max_examples=30)
@given(few, st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_interval(values: list[float], seed: int) -> None:
    intervals = [bootstrap_interval(values, seed=seed, resamples=50) for _ in range(2)]
    assert intervals[0] == intervals[1]


@settings(max_examples=30)
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
