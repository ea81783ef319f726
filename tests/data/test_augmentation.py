"""Slices are changed at random, and stay slices of a CT with their labels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.common.tensors import PADDING_HU
from cascade_rt.config import Augmentation, TrainConfig, load_config
from cascade_rt.data.augmentation import Change, change_slice, draw_change
from cascade_rt.data.sampling import Batch, SliceSampler
from cascade_rt.data.slices import Case

CONFIG = TrainConfig(batch_size=2, slices="organ", augmentation="full")

changes = st.builds(
    Change,
    gain=st.floats(0.9, 1.1),
    shift_hu=st.floats(-20, 20),
    noise_hu=st.floats(0, 15),
    noise_seed=st.integers(0, 1 << 32),
    turn_deg=st.floats(-10, 10),
    zoom=st.floats(0.9, 1.1),
)


def labelled_slice(rows: int = 60, cols: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """An organ with a tumor, which are 200 and 400 HU above the rest."""
    label = np.zeros((rows, cols), dtype=np.uint8)
    label[10:40, 20:60] = 1
    label[18:32, 30:50] = 2
    return label.astype(np.int16) * 200, label


def epoch_of(config: TrainConfig, number: int = 0) -> list[Batch]:
    image, label = labelled_slice()
    case = Case("case", np.stack([image] * 4), np.stack([label] * 4), (2.5, 0.8, 0.8))
    return list(SliceSampler.over([case], config).epoch(number))


@given(st.integers(1, 90), st.integers(1, 90), changes)
def test_shapes_and_types_are_kept_and_no_label_is_new(rows: int, cols: int, change: Change) -> None:
    random = np.random.default_rng(0)
    image = random.integers(-1024, 3000, (rows, cols)).astype(np.int16)
    label = random.choice([0, 2], (rows, cols)).astype(np.uint8)
    moved_image, moved_label = change_slice(image, label, change)
    assert (moved_image.shape, moved_image.dtype) == (image.shape, np.int16)
    assert (moved_label.shape, moved_label.dtype) == (label.shape, np.uint8)
    assert set(np.unique(moved_label)) <= {0, 2}


@given(st.floats(-10, 10), st.floats(0.9, 1.1))
def test_image_and_label_are_moved_together(turn_deg: float, zoom: float) -> None:
    image, label = change_slice(*labelled_slice(), Change(turn_deg=turn_deg, zoom=zoom))
    inside = image > PADDING_HU + 1
    differences = np.abs(image[inside] / 200 - label[inside])
    # Linear interpolation against the nearest voxel: at most half a step at an edge and three quarters at a corner.
    assert differences.max() < 0.76
    assert label.any()


def test_a_slice_is_turned_from_rows_towards_columns() -> None:
    label = np.zeros((101, 101), dtype=np.uint8)
    label[50, 80] = 1
    _, moved = change_slice(
        np.zeros_like(label, dtype=np.int16), np.maximum(label, np.roll(label, 1, 0)), Change(turn_deg=10)
    )
    assert np.argwhere(moved)[:, 0].mean() == pytest.approx(50 - 30 * np.sin(np.radians(10)), abs=1)


@given(changes)
def test_padding_stays_and_what_comes_in_from_outside_is_padding(change: Change) -> None:
    image = np.full((40, 40), PADDING_HU, dtype=np.int16)
    assert (change_slice(image, image.astype(np.uint8) * 0, change)[0] == PADDING_HU).all()
    shrunk, _ = change_slice(
        np.zeros_like(image), np.zeros((40, 40), np.uint8), replace(change, zoom=0.8, noise_hu=0.0)
    )
    assert shrunk[0, 0] == PADDING_HU


def test_the_input_is_not_written_to() -> None:
    image, label = labelled_slice()
    before = image.copy(), label.copy()
    change_slice(image, label, Change(gain=1.1, noise_hu=5, turn_deg=5))
    assert np.array_equal(image, before[0])
    assert np.array_equal(label, before[1])


def test_gain_shift_and_noise_are_those_of_the_change() -> None:
    image, label = labelled_slice(200, 200)
    found, _ = change_slice(image, label, Change(gain=1.1, shift_hu=-7, noise_hu=10))
    noise = found - (image * 1.1 - 7)
    assert (noise.mean(), noise.std()) == pytest.approx((0, 10), abs=0.3)


def test_contrast_medium_leaves_fat_and_air_alone() -> None:
    image = np.array([[-1000, -100, 0, 20, 40, 120]], dtype=np.int16)
    found, _ = change_slice(image, np.zeros_like(image, dtype=np.uint8), Change(uptake_hu=30))
    assert found.tolist() == [[-1000, -100, 0, 35, 70, 150]]


def test_a_change_of_contrast_leaves_black_and_white_where_they_are() -> None:
    image = np.array([[-100, 0, 60, 240]], dtype=np.int16)
    found, _ = change_slice(image, np.zeros_like(image, dtype=np.uint8), Change(contrast=0.5))
    assert found.tolist() == [[-100, 0, 120, 240]]


def test_a_blur_keeps_the_mean_and_softens_edges() -> None:
    image, label = labelled_slice()
    found, _ = change_slice(image, label, Change(blur=1.0))
    assert found.mean() == pytest.approx(image.mean(), abs=1)
    assert np.abs(np.diff(found, axis=0)).max() < np.abs(np.diff(image, axis=0)).max()


@given(changes, st.integers(0, 20), st.integers(0, 30))
def test_a_patch_is_cut_where_it_was_drawn(change: Change, row: int, col: int) -> None:
    image, label = labelled_slice()
    window = (slice(row, row + 40), slice(col, col + 40))
    moved = change_slice(image, label, change, window)
    assert [part.shape for part in moved] == [(40, 40), (40, 40)]
    unchanged = change_slice(image, label, Change(), window)
    assert np.array_equal(unchanged[0], image[window])


def test_a_patch_is_rotated_about_its_center_with_its_surroundings() -> None:
    image, label = labelled_slice(101, 101)
    window = (slice(0, 81), slice(0, 81))
    patch, _ = change_slice(image, label, Change(turn_deg=8), window)
    assert patch[40, 40] == image[40, 40]
    assert patch[80, 80] != PADDING_HU


def test_without_augmentation_nothing_is_drawn_and_nothing_changes() -> None:
    random = np.random.default_rng(0)
    assert draw_change("none", random) == Change()
    assert random.random() == np.random.default_rng(0).random()
    image, label = labelled_slice()
    found = change_slice(image, label, Change())
    assert all(np.array_equal(after, before) for after, before in zip(found, (image, label), strict=True))


def test_intensity_moves_nothing() -> None:
    change = draw_change("intensity", np.random.default_rng(0))
    assert (change.turn_deg, change.zoom) == (0, 1)
    assert 0 not in (change.shift_hu, change.noise_hu)


def test_the_preset_of_the_paper_changes_nothing() -> None:
    assert load_config(preset="paper")[1].augmentation == "none"


@pytest.mark.parametrize("augmentation", ["intensity", "full", "wide"])
@pytest.mark.parametrize("patch", [0, 64])
def test_the_same_epoch_gives_the_same_batches_and_another_others(augmentation: Augmentation, patch: int) -> None:
    config = replace(CONFIG, augmentation=augmentation, patch=patch)
    first, again, other = epoch_of(config), epoch_of(config), epoch_of(config, 1)
    assert all(
        np.array_equal(a.hu, b.hu) and np.array_equal(a.label, b.label) for a, b in zip(first, again, strict=True)
    )
    assert not any(np.array_equal(a.hu, b.hu) for a, b in zip(first, other, strict=True))


def test_each_slice_of_a_batch_is_changed_in_its_own_way() -> None:
    (first, *_) = epoch_of(CONFIG)
    assert not np.array_equal(first.hu[0], first.hu[1])


def test_what_a_batch_is_padded_with_is_not_changed() -> None:
    (first, *_) = epoch_of(CONFIG)
    assert first.hu.shape == (2, 1, 64, 96)
    assert (first.hu[:, 0, 60:] == PADDING_HU).all()
    assert (first.hu[:, 0, :, 80:] == PADDING_HU).all()
