"""Runs of a mask say what its voxels say: the same pieces, the same neighbours."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cascade_rt.common.pixel_runs import Runs, connected, erase, find_runs, touching

Labels = npt.NDArray[np.uint8]

MASKS = arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 2))


def runs_of(mask: Labels, *labels: int) -> Runs:
    return find_runs(mask, lambda image: np.isin(image, labels))


def painted(runs: Runs, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An image of the mask's shape with the value of each run in its voxels, and -1 elsewhere."""
    image = np.full(runs.shape, -1)
    for index, row, first, behind, value in zip(runs.slices, runs.rows, *runs.columns, values, strict=True):
        image[index, row, first:behind] = value
    return image


def neighbourhood(across_slices: bool) -> npt.NDArray[np.bool_]:
    """What counts as a neighbour, for scipy."""
    structure = np.ones((3, 3, 3), dtype=bool)
    structure[[0, 2]] = across_slices
    return structure


@settings(max_examples=60)
@given(MASKS)
def test_runs_hold_the_voxels_of_their_labels_and_no_others(mask: Labels) -> None:
    runs = runs_of(mask, 2)
    np.testing.assert_array_equal(painted(runs, np.ones(len(runs))) == 1, mask == 2)


@settings(max_examples=60)
@given(MASKS)
def test_runs_are_as_long_as_they_can_be(mask: Labels) -> None:
    runs = runs_of(mask, 1, 2)
    assert (runs.lengths > 0).all()
    assert (runs.starts[1:] > runs.stops[:-1]).all()


@settings(max_examples=100)
@given(MASKS, st.booleans())
def test_pieces_are_those_that_scipy_labels(mask: Labels, across_slices: bool) -> None:
    runs = runs_of(mask, 1, 2)
    count, piece = connected(runs, across_slices=across_slices)
    expected, expected_count = ndimage.label(mask > 0, structure=neighbourhood(across_slices))
    assert count == expected_count
    pairs = {(int(ours), int(theirs)) for ours, theirs in zip(painted(runs, piece).flat, expected.flat, strict=True)}
    assert len(pairs - {(-1, 0)}) == count


@settings(max_examples=100)
@given(MASKS, st.booleans())
def test_what_touches_is_what_lies_in_the_others_grown_by_a_voxel(mask: Labels, across_slices: bool) -> None:
    runs = runs_of(mask, 1)
    near = ndimage.binary_dilation(mask == 2, structure=neighbourhood(across_slices))
    expected = {number for number in range(len(runs)) if near[painted(runs, np.arange(len(runs))) == number].any()}
    assert set(touching(runs, runs_of(mask, 2), across_slices=across_slices)[0].tolist()) == expected


@settings(max_examples=60)
@given(MASKS, st.integers(0, 2**32 - 1))
def test_erasing_takes_the_voxels_of_the_runs_and_no_others(mask: Labels, seed: int) -> None:
    runs = runs_of(mask, 1, 2)
    chosen = np.random.default_rng(seed).random(len(runs)) < 0.5
    expected = np.where(painted(runs, chosen) == 1, 0, mask)
    erase(mask, runs[chosen])
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("place", [(1, 0, 0), (0, 1, 0), (1, 1, 0)])
def test_an_edge_of_the_image_is_next_to_no_other_edge(place: tuple[int, int, int]) -> None:
    mask = np.zeros((2, 2, 3), dtype=np.uint8)
    mask[0, 0, 2] = mask[place] = 1
    assert connected(runs_of(mask, 1))[0] == 2
