"""One comparison of results: what is counted, how results are pooled, and that NaN never passes."""

import math
from itertools import starmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade_rt.common.comparison import Agreement, compare, moved_boxes
from cascade_rt.common.labels import LOWEST_LABEL
from cascade_rt.common.tolerances import Limits

labels = hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2))
values = hnp.arrays(np.float32, (2, 3), elements=st.floats(0, 1, width=32) | st.just(math.nan))
SLICES = ("first", "second")


def array(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float32)


@given(labels)
def test_mask_agrees_with_itself(mask: np.ndarray) -> None:
    found = compare(mask, mask.copy())
    assert (found.voxels, found.different, found.max_error, found.mean_error) == (60, 0, 0, 0)


@given(labels, labels)
def test_voxels_with_another_label_are_counted(first: np.ndarray, second: np.ndarray) -> None:
    pairs = list(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True))
    found = compare(first, second)
    assert found.different == sum(one != other for one, other in pairs)
    assert found.max_error == max(abs(one - other) for one, other in pairs)


def test_pancreas_taken_for_tumor_is_a_difference() -> None:
    found = compare(np.array([1, 1], np.uint8), np.array([1, 2], np.uint8), LOWEST_LABEL)
    assert (found.different, found.dice) == (1, {"organ": 1.0, "tumor": 0.0})


def test_masks_that_are_both_empty_have_no_dice() -> None:
    empty = np.zeros(3, np.uint8)
    found = compare(empty, empty, LOWEST_LABEL)
    assert found.dice == {"organ": None, "tumor": None}
    assert found.missed(Limits(least_dice=1.0)) is None


def test_differences_are_reported_per_hundred_thousand_voxels() -> None:
    assert Agreement(voxels=2_000_000, different=3).per_100_000 == 0.15


@pytest.mark.parametrize("shape", [(1, 4), (4,), (2, 5)])
def test_results_of_unequal_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have equal shapes, got \(.*\) and \(2, 4\)"):
        compare(np.zeros((2, 4), np.uint8), np.zeros(shape, np.uint8))


def test_errors_are_absolute_differences() -> None:
    found = compare(array(0.5, 0.25, 0.25), array(0.5, 0.75, 0.0))
    assert (found.max_error, found.mean_error, found.different) == (0.5, 0.25, 2)


@pytest.mark.parametrize("numbers", [(math.nan, 0.0), (0.0, math.nan), (0.5, math.inf)])
@pytest.mark.parametrize("swapped", [False, True])
def test_nan_never_passes(numbers: tuple[float, float], swapped: bool) -> None:
    pair = (array(0.0, math.inf), array(*numbers))
    found = compare(*(pair[::-1] if swapped else pair))
    assert math.isnan(found.max_error)
    assert found.missed(Limits()) == "max_error"
    for pooled in (found + Agreement(1), Agreement(1, max_error=9.0) + found):
        assert pooled.missed(Limits()) == "max_error"


def test_what_compared_nothing_does_not_pass() -> None:
    assert Agreement().missed(Limits()) == "mean_error"


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        (Limits(), None),
        (Limits(max_error=0.5, mean_error=0.25, least_dice=0.5), None),
        (Limits(max_error=0.4), "max_error"),
        (Limits(mean_error=0.2), "mean_error"),
        (Limits(least_dice=0.8), "least_dice"),
    ],
)
def test_the_first_limit_that_is_missed_is_named(limits: Limits, missed: str | None) -> None:
    found = compare(array(0.5, 0.25, 0.25), array(0.5, 0.75, 0.0), {"mask": 0.5})
    assert found.missed(limits) == missed


@given(st.lists(st.tuples(values, values), min_size=1, max_size=4))
def test_adding_pools_results_as_if_they_were_one(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    thresholds = {"low": 0.25, "high": 0.75}
    added = sum(starmap(lambda a, b: compare(a, b, thresholds, slices=SLICES), pairs), Agreement())
    joined = [np.concatenate(arrays) for arrays in zip(*pairs, strict=True)]
    at_once = compare(*joined, thresholds, slices=SLICES * len(pairs))
    assert (added.voxels, added.different, added.counts) == (at_once.voxels, at_once.different, at_once.counts)
    assert added.worst_slice == at_once.worst_slice
    np.testing.assert_equal(added.max_error, at_once.max_error)
    np.testing.assert_allclose(added.mean_error, at_once.mean_error, rtol=1e-12)


def test_boxes_that_moved_came_or_went_are_named_in_order() -> None:
    assert moved_boxes({1: "a", 2: "b", 5: "c"}, {4: "d", 2: "e", 1: "a", 5: "c"}) == [2, 4]
    assert moved_boxes({3: "a"}, {}) == [3]
