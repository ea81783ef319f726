"""Synthetic tumors: where they lie, what they leave alone, and that training sees them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rt.config import TrainConfig
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.sampling import SliceSampler
from cascade_rt.data.slices import Case
from cascade_rt.data.synthetic_tumor import add_tumor
from cascade_rt.errors import UsageError

PLAIN = TumorRecipe(push=(0.0, 0.0), duct_share=0.0, atrophy_share=0.0, overhang=(0.0, 0.0), necrosis_share=0.0)
"""Nothing but a tumor inside the gland."""
DARK = replace(PLAIN, equal_share=0.0, brighter_share=0.0, darker_hu=(40.0, 50.0), edge_mm=(0.5, 1.0))


@pytest.fixture(scope="module")
def healthy() -> Case:
    phantom = make_phantom(801, (24, 256, 256), tumor=False)
    return Case("healthy", phantom.hu, phantom.label, phantom.spacing_mm)


@pytest.fixture(scope="module")
def middle(healthy: Case) -> int:
    return int(np.argmax((healthy.label > 0).sum(axis=(1, 2))))


def grow(case: Case, slices: slice, recipe: TumorRecipe, seed: int) -> tuple[np.ndarray, np.ndarray]:
    grown = add_tumor(case.image[slices], case.label[slices], case.spacing_mm, recipe, np.random.default_rng(seed))
    assert grown is not None
    return grown


def one(index: int) -> slice:
    return slice(index, index + 1)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_a_tumor_inside_the_gland_takes_nothing_else(healthy: Case, middle: int, seed: int) -> None:
    grown = add_tumor(
        healthy.image[one(middle)], healthy.label[one(middle)], healthy.spacing_mm, PLAIN, np.random.default_rng(seed)
    )
    if grown is None:
        return
    _, label = grown
    assert (label == 2).any()
    np.testing.assert_array_equal(label > 0, healthy.label[one(middle)] > 0)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_far_from_the_gland_nothing_changes(healthy: Case, middle: int, seed: int) -> None:
    grown = add_tumor(
        healthy.image[one(middle)],
        healthy.label[one(middle)],
        healthy.spacing_mm,
        replace(TumorRecipe(), median_diameter_mm=12.0, diameter_spread=0.1),
        np.random.default_rng(seed),
    )
    if grown is None:
        return
    rows, cols = (np.flatnonzero(healthy.label[middle].any(axis=axis)) for axis in (1, 0))
    outside = np.ones(healthy.label.shape[1:], dtype=bool)
    outside[max(0, rows[0] - 40) : rows[-1] + 40, max(0, cols[0] - 40) : cols[-1] + 40] = False
    np.testing.assert_array_equal(grown[0][0][outside], healthy.image[middle][outside])


def test_equal_seeds_give_equal_tumors_and_others_give_others(healthy: Case, middle: int) -> None:
    first, again, other = (grow(healthy, one(middle), TumorRecipe(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_what_it_is_made_from_is_left_as_it_is(healthy: Case, middle: int) -> None:
    image, label = healthy.image.copy(), healthy.label.copy()
    grow(healthy, one(middle), TumorRecipe(), 3)
    np.testing.assert_array_equal(healthy.image, image)
    np.testing.assert_array_equal(healthy.label, label)


def test_a_dark_tumor_is_darker_than_its_gland_by_what_the_recipe_says(healthy: Case, middle: int) -> None:
    hu, label = grow(healthy, one(middle), replace(DARK, mottle_hu=(0.0, 0.0)), 4)
    gland = healthy.image[one(middle)][label == 1].astype(float)
    assert 30 < np.median(gland) - np.median(hu[label == 2]) < 60


def test_a_volume_has_one_tumor_over_neighbouring_slices(healthy: Case) -> None:
    _, label = grow(healthy, slice(None), replace(PLAIN, median_diameter_mm=30.0, diameter_spread=0.05), 5)
    present = np.flatnonzero((label == 2).any(axis=(1, 2)))
    assert len(present) > 1
    assert np.array_equal(present, np.arange(present[0], present[-1] + 1))


def test_atrophy_makes_the_gland_smaller_on_the_way_to_the_tail(healthy: Case, middle: int) -> None:
    recipe = replace(PLAIN, atrophy_share=1.0, atrophy_mm=(2.0, 3.0), head_share=1.0)
    _, label = grow(healthy, one(middle), recipe, 6)
    assert np.count_nonzero(label) < np.count_nonzero(healthy.label[middle])


def test_without_gland_there_is_no_tumor(healthy: Case) -> None:
    nothing = np.zeros_like(healthy.label[:1])
    assert add_tumor(healthy.image[:1], nothing, healthy.spacing_mm, PLAIN, np.random.default_rng(0)) is None


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_training_sees_that_share_of_healthy_slices_with_a_tumor(healthy: Case, share: float) -> None:
    config = TrainConfig(slices="organ", synthetic_tumors=share, batch_size=4)
    sampler = SliceSampler.over([healthy], config)
    seen = [bool((label == 2).any()) for epoch in range(3) for batch in sampler.epoch(epoch) for label in batch.label]
    large = np.mean((healthy.label > 0).sum(axis=(1, 2))[[ref.z for ref in sampler.foreground]] > 400)
    assert share * large * 0.5 <= np.mean(seen) <= share


def test_the_same_epoch_has_the_same_tumors(healthy: Case) -> None:
    sampler = SliceSampler.over([healthy], TrainConfig(slices="organ", synthetic_tumors=0.5, batch_size=4))
    for first, again in zip(sampler.epoch(1), sampler.epoch(1), strict=True):
        np.testing.assert_array_equal(first.hu, again.hu)
        np.testing.assert_array_equal(first.label, again.label)


@pytest.mark.parametrize("wrong", [{"head_share": 1.5}, {"edge_mm": (3.0, 1.0)}, {"median_diameter_mm": 0.0}])
def test_a_recipe_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="tumor_recipe"):
        TumorRecipe(**wrong)  # type: ignore[arg-type]
