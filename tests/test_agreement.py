"""How far two engines agree, counted and pooled."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cascade_rt.agreement import MaskAgreement, mask_agreement, max_errors

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
