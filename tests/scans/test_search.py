"""Doing less in stage 1: what is looked at, what is left out, and that it is never silent."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import UsageError
from cascade_rt.models.crop import Box
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions, SearchRecord, find_body, first_slices, neighbourhood
from cascade_rt.scans.volume import Volume
from tests.cohort_files import AFFINE, fake_cascade

AIR, FAT, ORGAN, TUMOR = -1000, -100, 100, 200


def scan(first: int, stop: int, slices: int = 24) -> Volume:
    """A body of fat in air, organ in the slices `[first, stop)`, tumor in the first of them."""
    voxels = np.full((slices, 96, 128), AIR, dtype=np.int16)
    voxels[:, 20:70, 40:100] = FAT
    voxels[first:stop, 40:50, 60:80] = ORGAN
    voxels[first : min(stop, first + 1), 44:48, 64:70] = TUMOR
    return Volume.from_array(voxels.T, AFFINE)


def slices_seen(cascade: Cascade) -> tuple[Cascade, list[tuple[int, ...]]]:
    """The cascade, and a list that grows with the shape of each input of stage 1."""
    shapes: list[tuple[int, ...]] = []

    def look(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes.append(inputs["hu"].shape)
        return cascade.engines.stage1.run(inputs)

    engines = replace(cascade.engines, stage1=FakeEngine("stage1", look))
    return Cascade(cascade.bundle, engines), shapes


def codes(segmentation: Segmentation) -> set[str]:
    return {warning.code for warning in segmentation.warnings}


@given(st.integers(1, 60), st.integers(1, 12))
def test_every_slice_is_within_reach_of_a_first_pass_slice(count: int, every: int) -> None:
    first = first_slices(count, every)
    assert (abs(np.arange(count)[:, None] - np.array(first)).min(axis=1) <= every - 1).all()


@given(st.integers(1, 60), st.integers(2, 12), st.data())
def test_an_organ_crossed_by_a_first_pass_slice_is_searched_whole(count: int, every: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    found = [index for index in first_slices(count, every) if start <= index < stop]
    if found:
        assert set(range(start, stop)) <= set(neighbourhood(found, count, every))


@settings(max_examples=25)
@given(st.integers(0, 23), st.integers(4, 20), st.integers(1, 4), st.sampled_from(["full", "skip"]))
def test_an_organ_of_at_least_k_slices_is_found_whole(first: int, length: int, every: int, policy: str) -> None:
    volume = scan(max(0, min(first, 24 - length)), 24)
    whole = fake_cascade(empty_policy=policy).run(volume)
    found = fake_cascade(empty_policy=policy).run(volume, search=SearchOptions(every))
    np.testing.assert_array_equal(found.mask, whole.mask)


def test_slices_far_from_the_organ_are_searched_only_now_and_then() -> None:
    cascade, shapes = slices_seen(fake_cascade(empty_policy="full"))
    found = cascade.run(scan(8, 12), search=SearchOptions(4))
    assert sum(shape[0] for shape in shapes) == 12  # every fourth of 24, and six around the one with organ
    assert found.search == SearchRecord(4, slices_left_out=24 - 7)


def test_no_slice_that_is_left_out_goes_to_stage_2() -> None:
    found = fake_cascade(empty_policy="full").run(scan(8, 12), search=SearchOptions(4))
    assert sorted(found.boxes) == list(range(7, 14))


def test_skipped_slices_are_in_report_and_warnings() -> None:
    found = fake_cascade().run(scan(8, 12), search=SearchOptions(4))
    assert codes(found) == {"W_SLICES_LEFT_OUT"}
    assert found.to_json()["search"] == {
        "first_every": 4,
        "body_box": None,
        "slices_left_out": 17,
        "widened": False,
    }


def test_all_slices_are_searched_if_the_first_pass_finds_no_organ() -> None:
    volume = scan(7, 9)
    found = fake_cascade().run(volume, search=SearchOptions(8))
    np.testing.assert_array_equal(found.mask, fake_cascade().run(volume).mask)
    assert found.search.widened
    assert codes(found) == set()


def test_progress_counts_each_slice_once() -> None:
    for every in (1, 4, 8):
        counts: list[int] = []
        fake_cascade().run(scan(7, 12), search=SearchOptions(every), on_slices=counts.append)
        assert sum(counts) == 24


def test_a_whole_search_is_recorded_as_one_and_warns_of_nothing() -> None:
    found = fake_cascade().run(scan(8, 12))
    assert (found.search, codes(found)) == (SearchRecord(), set())


def test_fewer_than_every_slice_is_refused() -> None:
    with pytest.raises(UsageError, match="first_every: must be at least 1, got 0"):
        SearchOptions(0)


def test_the_body_is_boxed_on_the_grid_inside_the_image() -> None:
    box = find_body(scan(8, 12).voxels)
    assert box == Box(0, 32, 96, 96)


def test_a_body_wider_than_the_grid_allows_has_the_image_for_its_box() -> None:
    voxels = np.full((2, 70, 75), FAT, dtype=np.int16)
    assert find_body(voxels) == Box(0, 0, 70, 75)


def test_a_scan_of_air_has_the_image_for_its_box() -> None:
    assert find_body(np.full((2, 70, 75), AIR, dtype=np.int16)) == Box(0, 0, 70, 75)


@pytest.mark.parametrize("policy", ["full", "skip"])
@pytest.mark.parametrize("every", [1, 3])
def test_a_body_box_does_not_move_the_mask(policy: str, every: int) -> None:
    volume = scan(5, 15)
    cascade, shapes = slices_seen(fake_cascade(empty_policy=policy, margin=2))
    found = cascade.run(volume, search=SearchOptions(every, body_box=True), keep_probabilities=True)
    whole = fake_cascade(empty_policy=policy, margin=2).run(volume, keep_probabilities=True)
    np.testing.assert_array_equal(found.mask, whole.mask)
    np.testing.assert_array_equal(found.organ_prob, whole.organ_prob)
    assert {shape[2:] for shape in shapes} == {(96, 96)}
    assert "W_BODY_BOX" in codes(found)
    assert found.to_json()["search"]["body_box"] == {"row": 0, "col": 32, "height": 96, "width": 96}


def test_boxes_of_crops_are_those_of_the_whole_image() -> None:
    found = fake_cascade(empty_policy="skip", margin=2).run(scan(5, 15), search=SearchOptions(body_box=True))
    for index, box in found.boxes.items():
        rows, cols = np.nonzero(found.mask[index])
        assert box.row <= rows.min()
        assert rows.max() < box.row + box.height
        assert box.col <= cols.min()
        assert cols.max() < box.col + box.width


def test_a_body_box_does_not_move_crops_whose_corners_lie_on_a_grid() -> None:
    boxes = [
        fake_cascade(empty_policy="skip", margin=2, corner_grid=16).run(scan(5, 15), search=search).boxes
        for search in (SearchOptions(body_box=True), WHOLE_SCAN)
    ]
    assert boxes == [dict.fromkeys(range(5, 15), Box(16, 32, 64, 64))] * 2
