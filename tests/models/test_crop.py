"""Boxes hold the organ and its context whatever the image's size; crops go back to where they were cut from."""

from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.common.tensors import SHORTEST_SIDE
from cascade_rt.config import CropConfig
from cascade_rt.models.crop import (
    Box,
    CropBatch,
    CropQueue,
    align,
    crop,
    enlarge,
    full_box,
    grow,
    paste,
    plan_box,
    plan_mask_box,
    tightest_box,
)

Array = npt.NDArray[Any]

sides = st.integers(1, 600)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def configs(draw: st.DrawFn) -> CropConfig:
    grid = 16 * draw(st.integers(1, 4))
    return CropConfig(
        threshold=draw(st.sampled_from((0.1, 0.3, 0.5, 0.9))),
        margin=draw(st.integers(0, 80)),
        grid=grid,
        min_side=grid * draw(st.integers(-(-SHORTEST_SIDE // grid), 6)),
        corner_grid=draw(st.sampled_from((1, 8, 16, grid))),
        empty_policy=draw(st.sampled_from(("full", "skip"))),
    )


class Plan(NamedTuple):
    """A probability map with some organ, and the box planned for it."""

    prob: Array
    config: CropConfig
    box: Box

    @property
    def axes(self) -> list[tuple[int, int, int, int, int]]:
        """For rows, then columns: start and length of the box, side of the image, first and last organ pixel."""
        organ = np.argwhere(self.prob >= np.float32(self.config.threshold))
        first, last = organ.min(axis=0).tolist(), organ.max(axis=0).tolist()
        starts = (self.box.row, self.box.col)
        return list(zip(starts, self.box.size, self.prob.shape, first, last, strict=True))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    rows, cols, config = draw(sides), draw(sides), draw(configs())
    background = np.nextafter(np.float32(config.threshold), np.float32(0))
    prob = np.full((rows, cols), draw(st.sampled_from((np.float32(0), background))), dtype=np.float32)
    places = st.tuples(st.integers(0, rows - 1), st.integers(0, cols - 1))
    for place in draw(st.lists(places, min_size=1, max_size=4)):
        prob[place] = draw(st.sampled_from((np.float32(config.threshold), np.float32(1))))
    box = plan_box(prob.max(axis=1), prob.max(axis=0), config)
    assert box is not None, "a slice with organ has no box"
    return Plan(prob, config, box)


class Cut(NamedTuple):
    """An image and a box that begins inside it."""

    image: Array
    box: Box


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    rows, cols = draw(sides), draw(sides)
    image = np.random.default_rng(draw(seeds)).integers(1, 30_000, (rows, cols)).astype(np.int16)
    row, col = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    return Cut(image, Box(row, col, draw(sides), draw(sides)))


# The planned box


@given(plans())
def test_every_organ_pixel_lies_in_its_box(plan: Plan) -> None:
    for start, length, _, first, last in plan.axes:
        assert start <= first <= last < start + length


@given(plans())
def test_box_sides_are_multiples_of_the_grid(plan: Plan) -> None:
    assert [side % plan.config.grid for side in plan.box.size] == [0, 0]


@given(plans())
def test_box_sides_reach_the_shortest_side(plan: Plan) -> None:
    assert min(plan.box.size) >= plan.config.min_side


@given(plans())
def test_box_is_no_longer_than_organ_margin_and_grid_require(plan: Plan) -> None:
    for _, length, image, first, last in plan.axes:
        organ_and_margin = min(image, last + 1 + plan.config.margin) - max(0, first - plan.config.margin)
        outward = 2 * (plan.config.corner_grid - 1)
        assert length < max(organ_and_margin + outward + plan.config.grid, plan.config.min_side + 1)


@given(plans())
def test_box_starts_on_the_corner_grid_unless_the_image_ends(plan: Plan) -> None:
    for start, length, image, _, _ in plan.axes:
        assert start % plan.config.corner_grid == 0 or start + length == image


@given(st.integers(4, 64), st.integers(0, 40), st.data())
def test_box_follows_the_organ_only_across_the_grid_of_corners(cell: int, margin: int, data: st.DataObject) -> None:
    config = CropConfig(margin=margin, grid=16 * cell, min_side=16 * cell, corner_grid=cell)
    top, bottom = 10 * cell, (13 + 2 * (margin // cell + 1)) * cell
    boxes = set()
    for _ in range(2):
        mask = np.zeros((1100, 8), dtype=bool)
        above, below = (data.draw(st.integers(0, cell - 1)) for _ in range(2))
        mask[top + margin + above : bottom - margin - below] = True
        boxes.add(plan_mask_box(mask, config))
    assert len(boxes) == 1


@given(plans())
def test_box_starts_inside_the_image(plan: Plan) -> None:
    for start, _, image, _, _ in plan.axes:
        assert 0 <= start < image


@given(plans())
def test_box_leaves_the_image_only_if_the_image_is_smaller(plan: Plan) -> None:
    for start, length, image, _, _ in plan.axes:
        assert start + length <= image or (start == 0 and length > image)


@given(plans())
def test_margin_is_real_context_wherever_the_image_has_it(plan: Plan) -> None:
    for start, length, image, first, last in plan.axes:
        assert start <= max(0, first - plan.config.margin)
        assert start + length >= min(image, last + 1 + plan.config.margin)


@given(plans())
def test_box_from_maxima_is_the_box_from_the_mask(plan: Plan) -> None:
    assert plan_mask_box(plan.prob >= np.float32(plan.config.threshold), plan.config) == plan.box


@given(plans())
def test_tightest_box_from_maxima_is_the_box_of_all_organ_pixels(plan: Plan) -> None:
    box = tightest_box(plan.prob.max(axis=1), plan.prob.max(axis=0), plan.config.threshold)
    expected = [(first, last - first + 1) for _, _, _, first, last in plan.axes]
    assert box is not None
    assert [(box.row, box.height), (box.col, box.width)] == expected


def test_box_of_an_example_computed_by_hand() -> None:
    mask = np.zeros((512, 512), dtype=bool)
    mask[200:250, 300:370] = True
    # Rows 50 + 2 * 20 = 90, grown to 96: 3 more on each side. Columns 70 + 2 * 20 = 110, grown to 128: 9 more.
    assert plan_mask_box(mask, CropConfig()) == Box(row=177, col=271, height=96, width=128)


def test_box_with_corners_on_a_grid_computed_by_hand() -> None:
    mask = np.zeros((512, 512), dtype=bool)
    mask[200:250, 300:370] = True
    # Rows [180, 270) and columns [280, 390), outward to [176, 272) and [272, 400): 96 and 128 are on the grid of sides.
    assert plan_mask_box(mask, CropConfig(corner_grid=16)) == Box(row=176, col=272, height=96, width=128)
    mask[195] = mask[200]
    # Rows [175, 270), outward to [160, 272): 112, grown by 16 above.
    assert plan_mask_box(mask, CropConfig(corner_grid=16)) == Box(row=144, col=272, height=128, width=128)


def test_box_whose_corners_reach_beyond_the_image_is_shifted_into_it() -> None:
    mask = np.zeros((500, 500), dtype=bool)
    mask[440:499, 440:499] = True
    # [420, 500), outward to [416, 512): 96, and the last pixel is 499.
    assert plan_mask_box(mask, CropConfig(corner_grid=16)) == Box(row=404, col=404, height=96, width=96)


def test_aligned_box_is_the_smallest_on_the_grid_around_it() -> None:
    assert align(Box(17, 31, 15, 2), 16) == Box(16, 16, 16, 32)


def test_box_in_a_corner_is_shifted_into_the_image() -> None:
    mask = np.zeros((512, 512), dtype=bool)
    mask[511, 0] = True
    assert plan_mask_box(mask, CropConfig()) == Box(row=448, col=0, height=64, width=64)


def test_box_of_an_image_smaller_than_the_minimum_starts_at_its_corner() -> None:
    assert plan_mask_box(np.ones((1, 1), dtype=bool), CropConfig()) == Box(0, 0, 64, 64)


@pytest.mark.parametrize(("grid", "min_side", "side"), [(16, 64, 112), (32, 64, 128), (48, 96, 144)])
def test_grid_decides_the_side_of_the_box(grid: int, min_side: int, side: int) -> None:
    mask = np.zeros((512, 512), dtype=bool)
    mask[200:270, 200:270] = True
    box = plan_mask_box(mask, CropConfig(margin=20, grid=grid, min_side=min_side))
    assert box is not None
    assert box.size == (side, side)


def test_pixel_at_the_threshold_counts() -> None:
    prob = np.zeros(40, dtype=np.float32)
    prob[7] = 0.5
    assert tightest_box(prob, prob, 0.5) == Box(7, 7, 1, 1)


def test_pixel_just_below_the_threshold_does_not_count() -> None:
    prob = np.full(40, np.nextafter(np.float32(0.5), np.float32(0)))
    assert tightest_box(prob, prob, 0.5) is None


@given(sides, sides, configs())
def test_slice_without_organ_is_sent_whole_by_the_policy_full(rows: int, cols: int, config: CropConfig) -> None:
    config = replace(config, empty_policy="full")
    box = plan_mask_box(np.zeros((rows, cols), dtype=bool), config)
    assert box == full_box((rows, cols), config)


@given(sides, sides, configs())
def test_slice_without_organ_has_no_box_by_the_policy_skip(rows: int, cols: int, config: CropConfig) -> None:
    config = replace(config, empty_policy="skip")
    assert plan_mask_box(np.zeros((rows, cols), dtype=bool), config) is None


@given(sides, sides, configs())
def test_full_box_is_the_smallest_on_the_grid_that_holds_the_image(rows: int, cols: int, config: CropConfig) -> None:
    box = full_box((rows, cols), config)
    assert (box.row, box.col) == (0, 0)
    for length, image in zip(box.size, (rows, cols), strict=True):
        possible = range(config.min_side, 2000, config.grid)
        assert length == next(side for side in possible if side >= image)


def test_enlarged_box_stops_at_the_image() -> None:
    assert enlarge(Box(5, 90, 10, 8), (20, 20, 20, 20), (100, 100)) == Box(0, 70, 35, 30)


@given(st.integers(1, 60), st.integers(0, 60))
def test_box_far_from_the_border_grows_evenly(length: int, growth: int) -> None:
    box = grow(Box(300, 300, length, length), (length + growth, length), (600, 600))
    before, after = 300 - box.row, box.row + box.height - 300 - length
    assert before + after == growth
    assert abs(before - after) <= 1


# Cutting out and putting back


@given(cuts())
def test_paste_of_a_crop_restores_the_image_inside_the_box(cut: Cut) -> None:
    frame = np.zeros_like(cut.image)
    paste(crop(cut.image, cut.box), cut.box, frame)
    assert np.array_equal(frame[cut.box.slices], cut.image[cut.box.slices])


@given(cuts())
def test_paste_leaves_the_rest_of_the_frame(cut: Cut) -> None:
    frame = np.full_like(cut.image, -7)
    paste(crop(cut.image, cut.box), cut.box, frame)
    frame[cut.box.slices] = -7
    assert (frame == -7).all()


@given(cuts())
def test_crop_is_the_image_where_the_box_meets_it_and_zero_beyond(cut: Cut) -> None:
    padded = np.zeros((1200, 1200), dtype=np.int16)
    padded[: cut.image.shape[0], : cut.image.shape[1]] = cut.image
    assert np.array_equal(crop(cut.image, cut.box), padded[cut.box.slices])


@given(plans())
def test_crop_of_a_planned_box_is_padded_only_beyond_the_image(plan: Plan) -> None:
    ones = crop(np.ones(plan.prob.shape, dtype=np.uint8), plan.box)
    real = [min(length, image) for _, length, image, _, _ in plan.axes]
    assert ones[: real[0], : real[1]].all()
    assert ones.sum() == real[0] * real[1]


def test_crop_owns_its_pixels() -> None:
    image = np.zeros((80, 80), dtype=np.float32)
    crop(image, Box(0, 0, 64, 64))[...] = 1
    assert not image.any()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_crop_keeps_the_type_of_the_pixels(dtype: type) -> None:
    assert crop(np.zeros((8, 8), dtype=dtype), Box(2, 2, 16, 16)).dtype == dtype


def test_crop_and_paste_take_any_leading_axes() -> None:
    stack = np.arange(2 * 3 * 20 * 30).reshape(2, 3, 20, 30)
    frame = np.zeros_like(stack)
    box = Box(4, 10, 16, 32)
    paste(crop(stack, box), box, frame)
    assert np.array_equal(frame[:, :, 4:, 10:], stack[:, :, 4:, 10:])


# The queue

SIZES = ((64, 64), (64, 96), (96, 64))


class Served(NamedTuple):
    """What a queue was given, what it handed out, and how many crops waited after each `put`."""

    queue: CropQueue
    given: dict[int, tuple[Box, Array]]
    full: list[CropBatch]
    rest: list[CropBatch]
    most_waiting: Counter[tuple[int, int]]

    @property
    def batches(self) -> list[CropBatch]:
        return self.full + self.rest


@st.composite
def served_queues(draw: st.DrawFn) -> Served:
    queue = CropQueue(draw(st.integers(1, 5)))
    served = Served(queue, {}, [], [], Counter())
    waiting: Counter[tuple[int, int]] = Counter()
    for index, size in enumerate(draw(st.lists(st.sampled_from(SIZES), max_size=24))):
        box, patch = Box(index, 2 * index, *size), np.full((1, *size), index, dtype=np.float32)
        served.given[index] = box, patch
        batches = [batch for batch in [queue.put(index, box, patch)] if batch is not None]
        served.full.extend(batches)
        waiting[size] += 1
        waiting.subtract(Counter(size for batch in batches for size in (box.size for box in batch.boxes)))
        served.most_waiting[size] = max(served.most_waiting[size], waiting[size])
    served.rest.extend(queue.drain())
    return served


@given(served_queues())
def test_every_crop_put_in_comes_out_exactly_once(served: Served) -> None:
    assert sorted(index for batch in served.batches for index in batch.slices) == sorted(served.given)


@given(served_queues())
def test_crop_comes_out_with_the_box_of_its_slice(served: Served) -> None:
    for batch in served.batches:
        assert batch.boxes == tuple(served.given[index][0] for index in batch.slices)


@given(served_queues())
def test_crop_comes_out_with_its_own_pixels(served: Served) -> None:
    for batch in served.batches:
        assert np.array_equal(batch.crops, [served.given[index][1] for index in batch.slices])


@given(served_queues())
def test_batch_holds_crops_of_one_size(served: Served) -> None:
    for batch in served.batches:
        assert {box.size for box in batch.boxes} == {patch.shape[-2:] for patch in batch.crops}


@given(served_queues())
def test_batch_completed_by_a_crop_is_full(served: Served) -> None:
    assert all(len(batch.slices) == served.queue.batch_size for batch in served.full)


@given(served_queues())
def test_drained_batches_are_smaller_than_a_full_one(served: Served) -> None:
    assert all(0 < len(batch.slices) < served.queue.batch_size for batch in served.rest)


@given(served_queues())
def test_fewer_crops_of_a_size_wait_than_a_batch_holds(served: Served) -> None:
    assert all(waiting < served.queue.batch_size for waiting in served.most_waiting.values())


@given(served_queues())
def test_drain_empties_the_queue(served: Served) -> None:
    assert list(served.queue.drain()) == []


def test_crops_of_a_batch_keep_the_order_they_came_in() -> None:
    queue = CropQueue(3)
    *earlier, batch = [queue.put(index, Box(0, 0, 8, 8), np.zeros((1, 8, 8), np.float32)) for index in (5, 2, 9)]
    assert earlier == [None, None]
    assert batch is not None
    assert batch.slices == (5, 2, 9)


def test_queue_without_room_for_a_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        CropQueue(0)
