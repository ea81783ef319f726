"""Which slices an epoch visits, and how they are cut."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.common.tensors import PADDING_HU
from cascade_rt.config import TrainConfig
from cascade_rt.data.sampling import FAT_HU, SliceSampler, draw_patch, padded_shape, surround
from cascade_rt.data.slices import Case
from cascade_rt.errors import InputError

CONFIG = TrainConfig(batch_size=3)


def case(kinds: str, rows: int = 64, cols: int = 64, start: int = 0) -> Case:
    """A case whose slices are background (b), organ (o) or organ with tumor (t); each slice's HU is its number."""
    label = np.zeros((len(kinds), rows, cols), dtype=np.uint8)
    image = np.zeros(label.shape, dtype=np.int16)
    for z, kind in enumerate(kinds):
        image[z] = start + z
        if kind != "b":
            label[z, 20:30, 20:40] = 1
        if kind == "t":
            label[z, 24:26, 24:30] = 2
    return Case("case", image, label, (2.5, 0.8, 0.8))


def visited(sampler: SliceSampler, epoch: int = 0) -> list[int]:
    return [int(hu[0, 20, 20]) for batch in sampler.epoch(epoch) for hu in batch.hu]


@pytest.mark.parametrize(
    ("slices", "expected"), [("tumor", [2, 3]), ("organ", [1, 2, 3, 4]), ("all", [0, 1, 2, 3, 4, 5])]
)
def test_an_epoch_visits_each_slice_of_its_kind_once(slices: str, expected: list[int]) -> None:
    sampler = SliceSampler.over([case("bottob")], replace(CONFIG, slices=slices))  # type: ignore[arg-type]
    assert sorted(visited(sampler)) == expected


def test_background_is_mixed_in_as_a_share_of_the_others() -> None:
    sampler = SliceSampler.over([case("ooooobbbbbbbb")], replace(CONFIG, slices="organ", background_share=0.4))
    found = sorted(visited(sampler))
    assert found[:5] == [0, 1, 2, 3, 4]
    assert len(found) == 7
    assert set(found[5:]) <= set(range(5, 13))


def test_organ_without_tumor_is_never_mixed_in_as_background() -> None:
    sampler = SliceSampler.over([case("toobb")], replace(CONFIG, slices="tumor", background_share=9.0))
    assert sorted(visited(sampler)) == [0, 3, 4]


def test_batches_are_the_same_for_an_epoch_and_differ_between_epochs() -> None:
    sampler = SliceSampler.over([case("o" * 20)], replace(CONFIG, slices="organ"))
    assert visited(sampler, 1) == visited(sampler, 1)
    assert visited(sampler, 1) != visited(sampler, 2)


def test_the_number_of_batches_is_what_an_epoch_yields() -> None:
    sampler = SliceSampler.over([case("o" * 7 + "bb")], replace(CONFIG, slices="organ", background_share=0.2))
    assert len(list(sampler.epoch(0))) == sampler.batches_per_epoch == 3


def test_cases_without_the_slices_asked_for_are_refused() -> None:
    with pytest.raises(InputError, match="contain no slice with tumor"):
        SliceSampler.over([case("bbo")], CONFIG)


def test_slices_of_different_sizes_share_a_padded_batch() -> None:
    sampler = SliceSampler.over([case("t", 64, 64), case("t", 80, 100, start=7)], CONFIG)
    (batch,) = sampler.epoch(0)
    assert batch.hu.shape == (2, 1, 96, 128)
    small = batch.hu[batch.hu[:, 0, 20, 20] == 0][0, 0]
    assert set(np.unique(small[64:])) | set(np.unique(small[:, 64:])) == {PADDING_HU}


@given(st.integers(40, 300), st.integers(40, 300), st.integers(0, 1000))
def test_a_patch_holds_the_middle_of_the_organ(rows: int, cols: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    label = np.zeros((rows, cols), dtype=np.uint8)
    row, col = int(random.integers(0, rows)), int(random.integers(0, cols))
    label[row, col] = 1
    patch = label[draw_patch(label, 64, 1.0, random)]
    assert patch.shape == (min(rows, 64), min(cols, 64))
    assert patch.any()


def test_a_patch_is_not_always_in_the_same_place() -> None:
    random = np.random.default_rng(0)
    label = np.zeros((200, 200), dtype=np.uint8)
    assert len({str(draw_patch(label, 64, 1.0, random)) for _ in range(20)}) > 10


def test_some_patches_lie_anywhere_if_requested() -> None:
    random = np.random.default_rng(0)
    label = np.zeros((400, 400), dtype=np.uint8)
    label[10:20, 10:20] = 1
    with_organ = sum(label[draw_patch(label, 64, 0.6, random)].any() for _ in range(4000))
    assert 0.58 < with_organ / 4000 < 0.64


def test_with_other_surroundings_only_the_box_of_the_organ_is_kept() -> None:
    cases = [case("ooo", start=1), case("ooo", rows=96, cols=80, start=4)]
    config = replace(CONFIG, slices="organ", batch_size=1, other_surroundings=1.0)
    batches = [batch for epoch in range(10) for batch in SliceSampler.over(cases, config).epoch(epoch)]
    around = set()
    for batch in batches:
        rows, cols = (np.flatnonzero((batch.label[0] == 1).any(axis=axis)) for axis in (1, 0))
        assert (len(rows), len(cols)) == (10, 20)
        hu = batch.hu[0, 0]
        assert np.unique(hu[batch.label[0] == 1]).size == 1
        around.add(float(hu[0, 0]))
    assert around == {FAT_HU, 1, 2, 3, 4, 5, 6}


@given(
    st.tuples(*[st.integers(1, 40)] * 4), st.tuples(*[st.integers(1, 40)] * 2), st.integers(0, 39), st.integers(0, 39)
)
def test_a_box_lands_inside_other_surroundings_whatever_their_sizes(
    box: tuple[int, int, int, int], shape: tuple[int, int], row: int, col: int
) -> None:
    label = np.zeros((80, 80), dtype=np.uint8)
    label[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = 1
    other = np.zeros(shape, dtype=np.uint8)
    other[min(row, shape[0] - 1), min(col, shape[1] - 1)] = 1
    hu, found = surround(label.astype(np.int16) * 7, label, np.full(shape, -1, dtype=np.int16), other)
    assert hu.shape == shape
    assert np.count_nonzero(found) == min(box[2], shape[0]) * min(box[3], shape[1])
    assert np.array_equal(hu, np.where(found == 1, 7, -1))


def test_padded_shapes_are_multiples_of_32_and_at_least_64() -> None:
    assert padded_shape([(10, 65), (33, 64)]) == (64, 96)


def kinds_visited(kinds: str, share: float, epoch: int = 0) -> list[str]:
    sampler = SliceSampler.over([case(kinds)], replace(CONFIG, slices="organ", tumor_share=share))
    return [kinds[number] for number in visited(sampler, epoch)]


@given(st.integers(1, 6), st.integers(1, 30), st.floats(0.05, 1.0), st.integers(0, 3))
def test_tumors_have_their_share_and_the_epoch_keeps_its_length(
    tumors: int, organs: int, share: float, epoch: int
) -> None:
    found = kinds_visited("t" * tumors + "o" * organs, share, epoch)
    assert len(found) == tumors + organs
    assert found.count("t") == round(share * len(found))


def test_slices_are_repeated_and_left_out_evenly() -> None:
    sampler = SliceSampler.over([case("ttoooooooo")], replace(CONFIG, slices="organ", tumor_share=0.5))
    found = visited(sampler)
    assert sorted(found.count(number) for number in (0, 1)) == [2, 3]
    assert {found.count(number) for number in range(2, 10)} == {0, 1}


def test_a_share_of_tumors_without_any_is_refused() -> None:
    with pytest.raises(InputError, match="no slice with tumor"):
        SliceSampler.over([case("oo")], replace(CONFIG, slices="organ", tumor_share=0.5))


def test_margins_are_left_to_the_config_unless_they_jitter() -> None:
    sampler = SliceSampler.over([case("ooo")], replace(CONFIG, slices="organ"))
    assert [batch.margins for batch in sampler.epoch(0)] == [None]


def test_half_the_jittered_margins_are_usual_the_others_0_to_double() -> None:
    sampler = SliceSampler.over([case("o" * 300)], replace(CONFIG, slices="organ", margin_jitter=True), margin=20)
    margins = np.concatenate([batch.margins for batch in sampler.epoch(0) if batch.margins is not None])
    assert margins.shape == (300, 4)
    assert (margins.min(), margins.max()) == (0, 40)
    assert 0.45 < np.mean(margins == 20) < 0.58
    assert all(np.unique(margins[:, side]).size > 30 for side in range(4))
