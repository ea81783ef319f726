"""Volumes, and lesions with their place in the patient, as they can be computed by hand."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.pixel_runs import Peaks, find_peaks
from cascade_rt.results.lesions import Lesion
from cascade_rt.results.measurements import Measurements, measure

Array = npt.NDArray[Any]

# From (z, row, col) to mm, oblique: every axis of the scan moves along two axes of the patient.
OBLIQUE = np.array([[0.3, 0.0, -0.7, 31.0], [0.0, -0.8, 0.2, -12.0], [2.5, 0.1, 0.0, -90.0], [0.0, 0.0, 0.0, 1.0]])
ML = 0.25
"""Volume of a voxel; exact in binary."""


def blank(shape: tuple[int, int, int] = (6, 9, 12)) -> npt.NDArray[np.uint8]:
    return np.zeros(shape, dtype=np.uint8)


def measured(mask: npt.NDArray[np.uint8], affine: Array = OBLIQUE, voxel_volume_ml: float = ML) -> Measurements:
    return measure(mask, affine, voxel_volume_ml)


def only_lesion(mask: npt.NDArray[np.uint8], affine: Array = OBLIQUE, voxel_volume_ml: float = ML) -> Lesion:
    (lesion,) = measured(mask, affine, voxel_volume_ml).lesions
    return lesion


def ball(radius_mm: float, spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    shape = tuple(int(2 * radius_mm / step) + 6 for step in spacing_mm)
    place = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    distance = np.linalg.norm(place * spacing_mm, axis=-1)
    return np.where(distance <= radius_mm, TUMOR_LABEL, 0).astype(np.uint8)


@pytest.fixture
def organ_with_tumor() -> npt.NDArray[np.uint8]:
    """60 voxels of organ in 3 slices, 8 of them tumor, in 2 of the slices."""
    mask = blank()
    mask[1:4, 2:6, 3:8] = ORGAN_LABEL
    mask[2:4, 3:5, 4:6] = TUMOR_LABEL
    return mask


# Volumes


def test_organ_volume_includes_the_tumor(organ_with_tumor: npt.NDArray[np.uint8]) -> None:
    assert measured(organ_with_tumor).organ_ml == 60 * ML


def test_pancreas_volume_excludes_the_tumor(organ_with_tumor: npt.NDArray[np.uint8]) -> None:
    assert measured(organ_with_tumor).pancreas_ml == 52 * ML


def test_tumor_volume_is_that_of_its_label(organ_with_tumor: npt.NDArray[np.uint8]) -> None:
    assert measured(organ_with_tumor).tumor_ml == 8 * ML


def test_organ_slices_are_those_with_either_label(organ_with_tumor: npt.NDArray[np.uint8]) -> None:
    organ_with_tumor[1] *= TUMOR_LABEL
    assert measured(organ_with_tumor).organ_slices == 3


def test_tumor_slices_are_those_with_tumor(organ_with_tumor: npt.NDArray[np.uint8]) -> None:
    assert measured(organ_with_tumor).tumor_slices == 2


def test_empty_mask_measures_nothing() -> None:
    assert measured(blank()) == Measurements(0.0, 0.0, 0.0, 0, 0, ())


def test_organ_without_tumor_has_no_lesion() -> None:
    assert measured(np.full((2, 3, 4), ORGAN_LABEL, dtype=np.uint8)).lesions == ()


# What one lesion is


@pytest.mark.parametrize("step", [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_voxels_that_share_a_face_an_edge_or_a_corner_are_one_lesion(step: tuple[int, int, int]) -> None:
    mask = blank()
    mask[2, 4, 5] = mask[2 + step[0], 4 + step[1], 5 + step[2]] = TUMOR_LABEL
    assert len(measured(mask).lesions) == 1


@pytest.mark.parametrize("step", [(0, 0, 2), (2, 0, 0), (1, 2, 1)])
def test_voxels_that_do_not_touch_are_two_lesions(step: tuple[int, int, int]) -> None:
    mask = blank()
    mask[2, 4, 5] = mask[2 + step[0], 4 + step[1], 5 + step[2]] = TUMOR_LABEL
    assert len(measured(mask).lesions) == 2


def test_pancreas_does_not_join_two_lesions() -> None:
    mask = blank()
    mask[2, 4, 3:8] = (TUMOR_LABEL, ORGAN_LABEL, ORGAN_LABEL, ORGAN_LABEL, TUMOR_LABEL)
    assert len(measured(mask).lesions) == 2


def test_lesion_inside_the_box_of_another_is_measured_alone() -> None:
    mask = blank((5, 9, 9))
    mask[2, 1:8, 1:8] = TUMOR_LABEL
    mask[2, 2:7, 2:7] = ORGAN_LABEL
    mask[2, 4, 4] = TUMOR_LABEL
    assert [lesion.volume_ml for lesion in measured(mask).lesions] == [24 * ML, ML]


def test_lesions_come_largest_first() -> None:
    mask = blank()
    mask[0, 0, 0] = TUMOR_LABEL
    mask[2:4, 3:6, 3:6] = TUMOR_LABEL
    mask[5, 8, 9:12] = TUMOR_LABEL
    assert [lesion.volume_ml for lesion in measured(mask).lesions] == [18 * ML, 3 * ML, ML]


def test_lesions_together_are_the_tumor() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 1, 2], dtype=np.uint8), (8, 30, 30), p=(0.9, 0.05, 0.05))
    found = measured(mask)
    assert sum(lesion.volume_ml for lesion in found.lesions) == found.tumor_ml


def test_lesion_counts_the_slices_it_is_seen_in() -> None:
    mask = blank()
    mask[1, 2:5, 2:5] = mask[2, 4, 4] = mask[3, 5, 5] = TUMOR_LABEL
    lesion = only_lesion(mask)
    assert (lesion.slices, lesion.first_slice, lesion.last_slice) == (3, 1, 3)


# Beside the pancreas


@pytest.mark.parametrize(("step", "touches"), [((0, 0, 1), True), ((1, -1, 1), True), ((0, 2, 0), False)])
def test_a_lesion_touches_the_pancreas_at_a_face_an_edge_or_a_corner(step: tuple[int, int, int], touches: bool) -> None:
    mask = blank()
    mask[2, 4, 5], mask[2 + step[0], 4 + step[1], 5 + step[2]] = TUMOR_LABEL, ORGAN_LABEL
    assert only_lesion(mask).touches_pancreas is touches


def test_of_two_lesions_each_has_its_own_neighbours() -> None:
    mask = blank()
    mask[1, 1, 1:4] = TUMOR_LABEL
    mask[4, 7, 7:9] = (TUMOR_LABEL, ORGAN_LABEL)
    assert [lesion.touches_pancreas for lesion in measured(mask).lesions] == [False, True]


# The longest diameter in a slice


def farthest(mask: npt.NDArray[np.uint8], row_mm: float, col_mm: float) -> float:
    """The same by a look at all pairs of pixels."""
    longest = 0.0
    for image in mask:
        places = np.argwhere(image == TUMOR_LABEL)
        for place in places:
            sides = (np.abs(places - place) + 1) * (row_mm, col_mm)
            longest = max(longest, float(np.hypot(*sides.T).max()))
    return longest


def axial(shape: npt.NDArray[np.bool_], row_mm: float = 1.0, col_mm: float = 1.0) -> float:
    """The diameter of one lesion `[z, row, col]`."""
    affine = np.diag([2.0, row_mm, col_mm, 1.0])
    return only_lesion(shape.astype(np.uint8) * TUMOR_LABEL, affine).longest_axial_diameter_mm


def test_the_diameter_of_one_pixel_is_its_diagonal() -> None:
    assert axial(np.ones((1, 1, 1), dtype=bool), 3.0, 4.0) == pytest.approx(5.0)


def test_the_diameter_lies_in_one_slice() -> None:
    lesion = np.zeros((2, 1, 20), dtype=bool)
    lesion[0, 0, :11] = lesion[1, 0, 10:] = True
    assert axial(lesion) == pytest.approx(np.hypot(1, 11))


def test_the_diameter_spans_hollows_and_parts_joined_in_another_slice() -> None:
    lesion = np.ones((2, 4, 30), dtype=bool)
    lesion[0, 1:3, 4:26] = False
    lesion[1, :, :] = False
    lesion[1, 1, :] = True
    lesion[0, :, 12:18] = False
    assert axial(lesion) == pytest.approx(np.hypot(4, 30))


@pytest.mark.parametrize("radius_mm", [4.0, 12.5])
def test_the_diameter_of_a_ball_is_its_own_within_two_pixels(radius_mm: float) -> None:
    spacing = (2.5, 0.8, 0.7)
    found = only_lesion(ball(radius_mm, spacing), np.diag([*spacing, 1.0])).longest_axial_diameter_mm
    assert 2 * radius_mm - 1.0 < found < 2 * radius_mm + 1.6


@settings(max_examples=100)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))),
    st.sampled_from([(1.0, 1.0), (0.6, 0.9), (2.0, 0.5)]),
)
def test_the_diameter_is_that_of_all_pairs_of_pixels(tumor: npt.NDArray[np.bool_], pixel: tuple[float, float]) -> None:
    mask = tumor.astype(np.uint8) * TUMOR_LABEL
    pieces, count = ndimage.label(tumor, structure=np.ones((3, 3, 3)))
    lesions = measured(mask, np.diag([2.0, *pixel, 1.0])).lesions
    expected = [farthest(np.where(pieces == number, mask, 0), *pixel) for number in range(1, count + 1)]
    assert sorted(lesion.longest_axial_diameter_mm for lesion in lesions) == pytest.approx(sorted(expected))


# Where and how large


def test_center_of_one_voxel_is_its_place_in_the_world() -> None:
    mask = blank()
    mask[4, 7, 10] = TUMOR_LABEL
    expected = (0.3 * 4 - 0.7 * 10 + 31.0, -0.8 * 7 + 0.2 * 10 - 12.0, 2.5 * 4 + 0.1 * 7 - 90.0)
    assert only_lesion(mask).center_mm == pytest.approx(expected)


def test_center_is_the_mean_of_all_voxels() -> None:
    mask = blank()
    mask[1, 2, 3] = mask[1, 2, 4] = mask[1, 3, 4] = TUMOR_LABEL
    world = OBLIQUE @ [1, 7 / 3, 11 / 3, 1]
    assert only_lesion(mask).center_mm == pytest.approx(tuple(world[:3]))


def test_each_lesion_has_its_own_center() -> None:
    mask = blank()
    mask[0, 0, 0] = TUMOR_LABEL
    mask[5, 8, 10:12] = TUMOR_LABEL
    centers = [lesion.center_mm for lesion in measured(mask, np.eye(4)).lesions]
    assert centers == [(5.0, 8.0, 10.5), (0.0, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("radius_mm", "spacing_mm"),
    [(10.0, (1.0, 1.0, 1.0)), (15.0, (2.5, 0.8, 0.8)), (6.0, (0.5, 0.7, 0.6))],
)
def test_diameter_of_a_ball_is_its_own(radius_mm: float, spacing_mm: tuple[float, float, float]) -> None:
    lesion = only_lesion(ball(radius_mm, spacing_mm), np.diag([*spacing_mm, 1.0]), float(np.prod(spacing_mm)) / 1000)
    assert lesion.diameter_mm == pytest.approx(2 * radius_mm, rel=0.02)


def test_ball_in_the_middle_has_its_center_there() -> None:
    mask = ball(10.0, (1.0, 1.0, 1.0))
    lesion = only_lesion(mask, np.eye(4), 0.001)
    assert lesion.center_mm == pytest.approx(tuple((side - 1) / 2 for side in mask.shape))


# Scores


def scored(prob: Array, corners: dict[int, tuple[int, int]]) -> tuple[Lesion, ...]:
    """Lesions of a tumor that was found, slice by slice, in crops `[row, col]` with these corners."""
    mask = blank()
    parts = []
    for z, (row, col) in corners.items():
        crop = prob[z, row:, col:]
        mask[z, row:, col:][crop >= 0.5] = TUMOR_LABEL
        parts.append(find_peaks(crop >= 0.5, crop, (z, row, col), mask.shape))
    return measure(mask, OBLIQUE, ML, peaks=Peaks.joined(parts)).lesions


@given(prob=arrays(np.float32, (6, 9, 12), elements=st.floats(0, 1, width=16)), reverse=st.booleans())
@settings(max_examples=60)
def test_the_score_of_a_lesion_is_the_largest_probability_in_it(prob: Array, *, reverse: bool) -> None:
    corners = {z: (z % 3, z % 4) for z in (range(5, -1, -1) if reverse else range(6))}
    seen = np.zeros_like(prob)
    for z, (row, col) in corners.items():
        seen[z, row:, col:] = prob[z, row:, col:]

    lesions = scored(prob, corners)

    number, count = ndimage.label(seen >= 0.5, structure=np.ones((3, 3, 3)))
    expected = ndimage.maximum(seen, number, range(1, count + 1))
    assert sorted(lesion.score or 0.0 for lesion in lesions) == sorted(np.atleast_1d(expected).tolist())


def test_a_lesion_whose_probability_was_not_kept_has_no_score(organ_with_tumor: npt.NDArray[np.uint8]) -> None:
    assert only_lesion(organ_with_tumor).score is None
