"""What may be said of a handful of runs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.measuring.benchmarking.statistics import paired_ratio, percentile, spread

SECONDS = st.floats(min_value=1e-3, max_value=1e3)


def test_the_spread_of_one_run_is_that_run() -> None:
    found = spread([2.0])
    assert (found.runs, found.p50, found.fastest, found.slowest) == (1, 2.0, 2.0, 2.0)


@pytest.mark.parametrize(("percent", "fewest"), [(90, 10), (99, 100)])
def test_a_percentile_needs_enough_runs(percent: int, fewest: int) -> None:
    runs = [float(number) for number in range(fewest)]
    assert percentile(runs[1:], percent) is None
    assert percentile(runs, percent) is not None


def test_percentiles_lie_between_neighbouring_runs() -> None:
    assert percentile([float(number) for number in range(11)], 90) == 9.0


def test_the_ratio_is_the_geometric_mean_of_all_pairs() -> None:
    assert paired_ratio([2.0, 8.0], [1.0, 1.0]).ratio == pytest.approx(4.0)


def test_the_interval_is_students_t_on_logarithms() -> None:
    found = paired_ratio([math.exp(1), math.exp(2), math.exp(3)], [1.0, 1.0, 1.0])
    # t(0.975, 2) = 4.302653, standard error 1 / sqrt(3).
    assert math.log(found.high) == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)
    assert math.log(found.low) == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)


def test_a_single_pair_has_no_interval() -> None:
    assert math.isnan(paired_ratio([2.0], [1.0]).low)


def test_what_slows_both_down_does_not_change_the_ratio() -> None:
    found = paired_ratio([2.0, 20.0, 4.0], [1.0, 10.0, 2.0])
    assert (found.ratio, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


@pytest.mark.parametrize(("baseline", "seconds"), [([], []), ([1.0], [1.0, 2.0])])
def test_runs_without_a_pair_are_refused(baseline: list[float], seconds: list[float]) -> None:
    with pytest.raises(ValueError, match="must come in pairs"):
        paired_ratio(baseline, seconds)


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=2, max_size=20))
def test_turned_round_the_ratio_is_its_inverse(pairs: list[tuple[float, float]]) -> None:
    first, second = [list(each) for each in zip(*pairs, strict=True)]
    there, back = paired_ratio(first, second), paired_ratio(second, first)
    assert there.ratio * back.ratio == pytest.approx(1.0)
    assert there.low <= there.ratio * (1 + 1e-9)
    assert there.ratio <= there.high * (1 + 1e-9)
