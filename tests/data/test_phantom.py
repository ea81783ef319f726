"""What the CT phantom promises the rest of the project."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cascade_rt.data.phantom import Phantom, make_phantom

SMALL = (24, 128, 128)


@pytest.fixture(scope="module")
def small() -> Phantom:
    return make_phantom(3, SMALL, tumor=True)


@pytest.fixture(scope="module")
def again() -> Phantom:
    return make_phantom(3, SMALL, tumor=True)


@pytest.fixture(scope="module")
def full() -> Phantom:
    return make_phantom(4, tumor=True)


def _soft_core(phantom: Phantom, value: int) -> NDArray[np.int16]:
    """HU of the label's voxels away from its surface, in plane."""
    plane = ndimage.generate_binary_structure(3, 1)
    plane[[0, 2]] = False
    inside: NDArray[np.bool_] = ndimage.binary_erosion(phantom.label == value, plane, iterations=3)
    return phantom.hu[inside]


def test_same_seed_gives_the_same_image(small: Phantom, again: Phantom) -> None:
    assert np.array_equal(small.hu, again.hu)


def test_same_seed_gives_the_same_label(small: Phantom, again: Phantom) -> None:
    assert np.array_equal(small.label, again.label)


@pytest.mark.parametrize("shape", [(24, 128, 128), (16, 96, 96), (17, 101, 133), (20, 160, 96)])
def test_any_shape_is_met_with_a_pancreas_in_it(shape: tuple[int, int, int]) -> None:
    phantom = make_phantom(8, shape)
    assert phantom.hu.shape == phantom.label.shape == shape
    assert (phantom.label == 1).any(axis=(1, 2)).sum() >= shape[0] // 4


def test_image_is_int16_and_label_is_uint8(small: Phantom) -> None:
    assert [str(small.hu.dtype), str(small.label.dtype)] == ["int16", "uint8"]


def test_image_stays_in_the_range_of_a_scanner(small: Phantom) -> None:
    assert small.hu.min() >= -1024
    assert 300 < small.hu.max() <= 3071


def test_label_holds_background_pancreas_and_tumor(small: Phantom) -> None:
    assert set(np.unique(small.label)) == {0, 1, 2}


def test_field_of_view_does_not_depend_on_the_pixel_count() -> None:
    coarse, fine = make_phantom(3, (16, 96, 96)), make_phantom(3, (16, 192, 192))
    assert coarse.spacing_mm[1] == pytest.approx(2 * fine.spacing_mm[1])


@pytest.mark.parametrize("seed", range(4))
def test_tumor_can_be_forced_on_at_a_coarse_grid(seed: int) -> None:
    assert make_phantom(seed, (16, 96, 96), tumor=True).has_tumor


def test_tumor_can_be_forced_off() -> None:
    assert not make_phantom(3, SMALL, tumor=False).has_tumor


def test_tumor_changes_the_image_near_itself_only(small: Phantom) -> None:
    changed = small.hu != make_phantom(3, SMALL, tumor=False).hu
    near = ndimage.binary_dilation(small.label == 2, np.ones((3, 3, 3), bool), iterations=4)
    assert not (changed & ~near).any()


def test_most_but_not_all_seeds_have_a_tumor() -> None:
    present = sum(make_phantom(seed, (4, 24, 24)).has_tumor for seed in range(16))
    assert 10 <= present < 16


def test_tumor_is_darker_than_the_pancreas_but_never_black(full: Phantom) -> None:
    difference = np.median(_soft_core(full, 1)) - np.median(_soft_core(full, 2))
    assert 12 < difference < 43


def test_pancreas_spans_the_promised_slices_at_full_size(full: Phantom) -> None:
    assert 20 <= (full.label > 0).any(axis=(1, 2)).sum() <= 60


def test_spacing_at_full_size_is_that_of_an_abdominal_ct(full: Phantom) -> None:
    assert 2.0 < full.spacing_mm[0] < 3.0
    assert 0.65 <= full.spacing_mm[1] <= 0.95


def test_pancreas_is_one_piece(full: Phantom) -> None:
    _, pieces = ndimage.label(full.label > 0)
    assert pieces == 1


def test_tissue_as_bright_as_the_pancreas_lies_around_it(full: Phantom) -> None:
    smooth = ndimage.uniform_filter(full.hu.astype(np.float32), 3)
    level = np.median(smooth[full.label == 1])
    box = ndimage.find_objects((full.label > 0).astype(np.uint8))[0]
    alike = (abs(smooth[box] - level) < 15) & (full.label[box] == 0)
    assert alike.sum() > 0.3 * (full.label[box] > 0).sum()


def test_noise_is_that_of_a_soft_tissue_scan(full: Phantom) -> None:
    core = _soft_core(full, 1)
    assert 6 < 1.4826 * np.median(abs(core - np.median(core))) < 18


def test_two_seeds_are_two_patients(small: Phantom) -> None:
    first, second = small.label > 0, make_phantom(5, SMALL).label > 0
    assert 2 * (first & second).sum() / (first.sum() + second.sum()) < 0.6


def test_liver_is_on_the_low_column_side(small: Phantom) -> None:
    bright = abs(ndimage.uniform_filter(small.hu.astype(np.float32), 5) - 108) < 25
    half = bright.shape[2] // 2
    assert bright[12:, :, :half].sum() > 1.3 * bright[12:, :, half:].sum()


def test_spine_is_at_high_rows_in_the_middle(small: Phantom) -> None:
    bone = ndimage.binary_opening(small.hu > 160, iterations=2)
    _, row, col = ndimage.center_of_mass(bone)
    assert row > 0.55 * SMALL[1]
    assert abs(col / SMALL[2] - 0.5) < 0.08


def test_lung_is_at_the_high_slice_end(full: Phantom) -> None:
    inside = full.hu[:, 150:360, 150:360] < -700
    assert inside[-5:].sum() > 10 * inside[:5].sum()


@pytest.mark.parametrize("shape", [(0, 64, 64), (16, -1, 64)])
def test_shape_without_voxels_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="three positive sizes"):
        make_phantom(0, shape)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed must be at least 0"):
        make_phantom(-1)
