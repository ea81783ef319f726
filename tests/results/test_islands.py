"""Which pieces of a mask a bundle keeps, what the report says of the others, and when slices are no neighbours."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.config import CascadeConfig
from cascade_rt.errors import UsageError
from cascade_rt.results.islands import IslandRecord, keep_islands
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.volume import Volume
from tests.cohort_files import AFFINE, HU, VOXEL_ML, fake_cascade

Labels = npt.NDArray[np.uint8]

ML = 0.25
"""Volume of a voxel; exact in binary."""
MASKS = arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.sampled_from([0, 0, 0, 1, 2]))
RULES = st.builds(
    CascadeConfig, islands=st.sampled_from(["all", "largest"]), least_island_ml=st.sampled_from([0.0, 1.0])
)


def pieces(mask: Labels) -> list[int]:
    """Voxels of each piece, in ascending order."""
    labels, _ = ndimage.label(mask > 0, structure=np.ones((3, 3, 3)))
    return sorted(np.bincount(labels.ravel())[1:].tolist())


def kept(mask: Labels, **rule: Any) -> tuple[Labels, IslandRecord]:
    left = mask.copy()
    return left, keep_islands(left, CascadeConfig(**rule), ML)


@pytest.fixture
def mask() -> Labels:
    """A piece of 18 voxels with tumor in it, one of 5 voxels of tumor, and a speck at the last slice."""
    labels = np.zeros((7, 12, 14), dtype=np.uint8)
    labels[1:4, 1:4, 1:3] = 1
    labels[2, 2, 2] = 2
    labels[3, 8, 5:10] = 2
    labels[6, 11, 13] = 1
    return labels


# The rule


def test_all_islands_are_kept_unless_asked_otherwise(mask: Labels) -> None:
    left, record = kept(mask)
    np.testing.assert_array_equal(left, mask)
    assert record == IslandRecord("all", 0.0, components=3, kept=3, voxels_dropped=0, ml_dropped=0.0)


def test_the_largest_island_is_kept_with_its_labels(mask: Labels) -> None:
    left, record = kept(mask, islands="largest")
    np.testing.assert_array_equal(left[1:4, 1:4, 1:3], mask[1:4, 1:4, 1:3])
    assert np.count_nonzero(left) == 18
    assert record == IslandRecord("largest", 0.0, components=3, kept=1, voxels_dropped=6, ml_dropped=6 * ML)


@pytest.mark.parametrize(("least_ml", "expected"), [(5 * ML, [1, 5, 18]), (5.1 * ML, [1, 18]), (20 * ML, [1])])
def test_small_islands_are_dropped_unless_they_reach_an_end_of_the_scan(
    mask: Labels, least_ml: float, expected: list[int]
) -> None:
    assert pieces(kept(mask, least_island_ml=least_ml)[0]) == expected


def test_a_scan_of_one_slice_keeps_what_is_too_small_for_a_scan() -> None:
    slice_of_organ = np.ones((1, 3, 4), dtype=np.uint8)
    assert pieces(kept(slice_of_organ, least_island_ml=1000.0)[0]) == [12]


def test_islands_that_share_a_corner_are_one() -> None:
    mask = np.zeros((3, 3, 3), dtype=np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 1
    assert kept(mask)[1].components == 1


def test_nothing_is_kept_of_nothing() -> None:
    _, record = kept(np.zeros((3, 4, 5), dtype=np.uint8), islands="largest", least_island_ml=2.0)
    assert (record.components, record.kept, record.nothing_left) == (0, 0, False)


@settings(max_examples=100)
@given(MASKS, RULES)
def test_kept_islands_are_unchanged_and_dropped_ones_are_counted(mask: Labels, rule: CascadeConfig) -> None:
    left = mask.copy()
    record = keep_islands(left, rule, ML)
    assert ((left == mask) | (left == 0)).all()
    assert record.voxels_dropped == np.count_nonzero(left != mask)
    assert (record.components, record.kept) == (len(pieces(mask)), len(pieces(left)))


@settings(max_examples=100)
@given(MASKS, RULES)
def test_a_second_time_drops_nothing(mask: Labels, rule: CascadeConfig) -> None:
    keep_islands(mask, rule, ML)
    assert keep_islands(mask, rule, ML).voxels_dropped == 0


@settings(max_examples=100)
@given(MASKS)
def test_no_island_was_larger_than_the_largest(mask: Labels) -> None:
    assert pieces(kept(mask, islands="largest")[0]) == pieces(mask)[-1:]


def test_a_bundle_that_does_not_look_for_the_organ_keeps_all_lesions() -> None:
    with pytest.raises(UsageError, match="when no organ is segmented: tumors are not parts of one object"):
        CascadeConfig(stage1="none", saliency=False, islands="largest")


@pytest.mark.parametrize("least_ml", [-1.0, float("nan"), float("inf")])
def test_a_least_volume_is_a_volume(least_ml: float) -> None:
    with pytest.raises(UsageError, match="least_island_ml must not be negative"):
        CascadeConfig(least_island_ml=least_ml)


# In a scan


def segmented(labels: Labels, *, scattered: bool = False, **rule: Any) -> Segmentation:
    """What a cascade without networks makes of a scan in which it finds these labels."""
    cascade = fake_cascade(empty_policy="full")
    manifest = replace(cascade.bundle.manifest, config=replace(cascade.bundle.manifest.config, **rule))
    volume = Volume.from_array(HU[labels].T, AFFINE, scattered=scattered)
    return Cascade(Bundle(cascade.bundle.path, manifest, cascade.bundle.sha256), cascade.engines).run(volume)


def told(segmentation: Segmentation) -> dict[str, str]:
    """The warnings of the result, without those of the scan."""
    return {warning.code: warning.message for warning in segmentation.warnings[len(segmentation.volume.warnings) :]}


def test_the_mask_of_a_scan_is_what_is_kept_and_so_are_its_measurements(mask: Labels) -> None:
    found = segmented(mask, islands="largest")
    assert np.count_nonzero(found.mask) == 18
    assert found.measurements.organ_ml == pytest.approx(18 * VOXEL_ML)
    assert found.to_json()["islands"] == {
        "setting": "largest",
        "least_ml": 0.0,
        "components": 3,
        "kept": 1,
        "voxels_dropped": 6,
        "ml_dropped": pytest.approx(6 * VOXEL_ML),
    }


def test_a_lesion_apart_from_the_pancreas_is_a_warning(mask: Labels) -> None:
    sentence = "the lesion of 0.01 ml in slices 3 to 3 does not touch the segmented pancreas"
    assert told(segmented(mask)) == {"W_LESION_APART": sentence}


def test_several_lesions_apart_are_one_warning(mask: Labels) -> None:
    mask[5, 11, 0] = 2
    assert told(segmented(mask))["W_LESION_APART"] == (
        "2 lesions do not touch the segmented pancreas, the largest of 0.01 ml in slices 3 to 3"
    )


def test_without_lesions_apart_there_is_no_warning(mask: Labels) -> None:
    assert told(segmented(mask, islands="largest")) == {}


def test_a_tumor_only_bundle_reports_nothing_about_the_pancreas(mask: Labels) -> None:
    found = fake_cascade(stage1="none").run(Volume.from_array(HU[mask].T, AFFINE))
    assert {lesion.touches_pancreas for lesion in found.measurements.lesions} == {None}
    assert told(found) == {}


def test_a_scan_of_which_nothing_is_kept_holds_no_organ_and_says_so(mask: Labels) -> None:
    mask[6] = 0
    found = segmented(mask, least_island_ml=2.0)
    assert (found.status, np.count_nonzero(found.mask)) == ("no_organ", 0)
    sentence = "everything found (0.04 ml) was dropped: all pieces are smaller than 2 ml"
    assert told(found) == {"W_NOTHING_KEPT": sentence}


# Slices that are no neighbours


def test_nothing_is_dropped_of_scattered_slices(mask: Labels) -> None:
    found = segmented(mask, scattered=True, islands="largest", least_island_ml=2.0)
    np.testing.assert_array_equal(found.mask, mask)
    report = found.to_json()
    assert (report["slices"]["scattered"], report["islands"]["components"], report["islands"]["kept"]) == (
        True,
        None,
        None,
    )


def test_lesions_of_scattered_slices_lie_in_one_slice_each() -> None:
    labels = np.zeros((4, 8, 8), dtype=np.uint8)
    labels[1:3, 3:5, 3:5] = 2
    labels[3, 3, 3] = 1
    for scattered, expected in ((False, [(1, 2, True)]), (True, [(1, 1, False), (2, 2, False)])):
        lesions = segmented(labels, scattered=scattered).measurements.lesions
        assert [(each.first_slice, each.last_slice, each.touches_pancreas) for each in lesions] == expected


def test_neither_volume_nor_ends_say_anything_of_scattered_slices() -> None:
    labels = np.zeros((4, 8, 8), dtype=np.uint8)
    labels[:, 3:5, 3:5] = 1
    assert segmented(labels).status == "organ_touches_border"
    assert segmented(labels[:, :, ::-1] * (np.arange(4) % 3 > 0)[:, None, None]).status == "implausible_organ"
    assert segmented(labels, scattered=True).status == "no_tumor"
