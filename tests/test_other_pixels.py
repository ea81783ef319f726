"""Scans on pixels that were not trained on: the same anatomy is found and what was done is said, or they are refused."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.cascade import Cascade, find_mask
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import InputError
from cascade_rt.inference import infer_file, plan_jobs
from cascade_rt.metrics import dice
from cascade_rt.pixel_grid import OwnPixels, ResampledPixels
from cascade_rt.search import SearchOptions
from cascade_rt.segmentation import Segmentation
from cascade_rt.volume import Volume
from tests.cohort_files import fake_cascade, trained_on

AIR, FAT, ORGAN, TUMOR = -1000, -100, 100, 200
TRAINED_MM = (0.7, 0.9)


def volume(voxels: np.ndarray, row_mm: float, col_mm: float) -> Volume:
    return Volume.from_array(voxels.T, np.diag([-col_mm, -row_mm, 2.5, 1.0]))


def blocks(row_mm: float, col_mm: float) -> Volume:
    """A body of fat in air, 80 mm by 100 mm, with an organ in the middle slices and a tumour in it."""
    voxels = np.full((6, round(80 / row_mm), round(100 / col_mm)), AIR, dtype=np.int16)

    def fill(slices: slice, rows_mm: tuple[int, int], cols_mm: tuple[int, int], hu: int) -> None:
        (top, bottom), (left, right) = rows_mm, cols_mm
        rows = slice(round(top / row_mm), round(bottom / row_mm))
        voxels[slices, rows, round(left / col_mm) : round(right / col_mm)] = hu

    fill(slice(0, 6), (12, 72), (12, 92), FAT)
    fill(slice(1, 5), (24, 48), (30, 66), ORGAN)
    fill(slice(2, 4), (30, 42), (36, 48), TUMOR)
    return volume(voxels, row_mm, col_mm)


def expected(scan: Volume) -> np.ndarray:
    return (scan.voxels >= ORGAN).astype(np.uint8) + (scan.voxels >= TUMOR)


def codes(found: Segmentation) -> set[str]:
    return {warning.code for warning in found.warnings}


@pytest.fixture
def cascade() -> Cascade:
    """Without networks: it finds organ and tumour by their HU, whatever the pixels."""
    return trained_on(fake_cascade(margin=2), TRAINED_MM)


def same_anatomy(found: np.ndarray, scan: Volume) -> bool:
    """Whether labels are those of the blocks, but for a pixel at their edges."""
    return all(dice(found >= lowest, expected(scan) >= lowest) > 0.9 for lowest in (1, 2))


# What is done


@pytest.mark.parametrize("sides", [(0.4, 0.4), (1.0, 1.0), (1.6, 1.6), (0.8, 1.2), (1.25, 0.5)])
@pytest.mark.parametrize("policy", ["full", "skip"])
def test_labels_lie_on_the_scan_s_own_grid(sides: tuple[float, float], policy: str) -> None:
    scan = blocks(*sides)
    found = trained_on(fake_cascade(empty_policy=policy), TRAINED_MM).run(scan)
    assert same_anatomy(found.mask, scan)


def test_the_networks_see_pixels_they_were_trained_on(cascade: Cascade) -> None:
    shapes = set()

    def look(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes.add(inputs["hu"].shape[2:])
        return cascade.engines.stage1.run(inputs)

    engines = replace(cascade.engines, stage1=FakeEngine("stage1", look))  # type: ignore[arg-type]
    Cascade(cascade.bundle, engines).run(blocks(0.4, 0.5))
    # 80 mm by 100 mm on 0.79 mm, padded to multiples of 16.
    assert shapes == {(112, 128)}


def test_pixels_that_were_trained_on_give_what_they_gave_before(cascade: Cascade) -> None:
    scan = blocks(0.8, 0.8)
    found = cascade.run(scan, keep_probabilities=True)
    before = trained_on(cascade, None).run(scan, keep_probabilities=True)
    np.testing.assert_array_equal(found.mask, before.mask)
    np.testing.assert_array_equal(found.tumor_prob, before.tumor_prob)
    assert (found.boxes, found.working_grid, found.warnings) == (before.boxes, None, before.warnings)


def test_pixels_that_were_trained_on_are_not_copied(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResampledPixels, "__init__", None)
    seen = []
    monkeypatch.setattr(OwnPixels, "place", lambda self, prob, box: (seen.append(prob.dtype), (box, prob))[1])
    cascade.run(blocks(0.8, 0.8))
    assert seen


@pytest.mark.parametrize("sides", [(0.4, 0.4), (1.6, 1.6)])
def test_kept_probabilities_lie_on_the_scan_s_own_grid(cascade: Cascade, sides: tuple[float, float]) -> None:
    scan = blocks(*sides)
    found = cascade.run(scan, keep_probabilities=True)
    assert found.organ_prob is not None
    assert found.tumor_prob is not None
    np.testing.assert_array_equal(found.organ_prob[found.tumor_prob == 0] >= 0.5, found.mask[found.tumor_prob == 0])
    np.testing.assert_array_equal(found.tumor_prob >= 0.5, found.mask == 2)
    np.testing.assert_array_equal(found.mask, cascade.run(scan).mask)


@pytest.mark.parametrize("sides", [(0.4, 0.4), (1.6, 1.6), (0.8, 1.2)])
def test_boxes_are_in_the_scan_s_own_pixels_and_hold_what_was_found(
    cascade: Cascade, sides: tuple[float, float]
) -> None:
    found = trained_on(fake_cascade(margin=2, empty_policy="skip"), TRAINED_MM).run(blocks(*sides))
    assert sorted(found.boxes) == [1, 2, 3, 4]
    for index, box in found.boxes.items():
        outside = found.mask[index].copy()
        outside[box.slices] = 0
        assert not outside.any()
        assert box.row + box.height <= outside.shape[0]
        assert box.col + box.width <= outside.shape[1]


@pytest.mark.parametrize("sides", [(0.4, 0.4), (1.6, 1.6)])
@pytest.mark.parametrize("search", [SearchOptions(2), SearchOptions(body_box=True), SearchOptions(2, body_box=True)])
def test_with_less_searched_the_labels_are_the_same(
    cascade: Cascade, sides: tuple[float, float], search: SearchOptions
) -> None:
    scan = blocks(*sides)
    found = cascade.run(scan, search=search)
    np.testing.assert_array_equal(found.mask, cascade.run(scan).mask)
    if search.body_box:
        box = found.search.body_box
        assert box is not None
        outside = scan.voxels > AIR
        outside[(slice(None), *box.slices)] = False
        assert not outside.any()


def test_without_a_size_of_pixels_slices_are_taken_as_they_are(cascade: Cascade) -> None:
    scan, config = blocks(1.6, 1.6), cascade.bundle.manifest.config
    np.testing.assert_array_equal(find_mask(cascade.engines, config, scan.voxels, None), expected(scan))
    by_size = find_mask(cascade.engines, config, scan.voxels, (1.6, 1.6))
    np.testing.assert_array_equal(by_size, cascade.run(scan).mask)


def test_a_file_that_is_being_read_is_treated_alike(cascade: Cascade, tmp_path: Path) -> None:
    scan = blocks(1.6, 1.6)
    nib.save(nib.Nifti1Image(scan.voxels.T, np.diag([-1.6, -1.6, 2.5, 1.0])), tmp_path / "scan.nii.gz")
    (job,) = plan_jobs([tmp_path / "scan.nii.gz"], tmp_path)
    found = infer_file(cascade, job)
    np.testing.assert_array_equal(found.mask, cascade.run(scan).mask)
    assert "W_RESAMPLED" in codes(found)


# What is said


def test_what_was_done_stands_in_report_and_warnings(cascade: Cascade) -> None:
    found = cascade.run(blocks(1.6, 1.6))
    (warning,) = [warning for warning in found.warnings if warning.code == "W_RESAMPLED"]
    assert warning.message == (
        "its pixels measure 1.6 x 1.6 mm and the networks were trained on 0.7 to 0.9 mm; "
        "slices were resampled to 0.792 x 0.794 mm, and what was found in them back"
    )
    report = found.to_json()
    assert report["geometry"]["working_grid"] == {
        "shape": (101, 126),
        "pixel_mm": pytest.approx((0.792, 0.788), abs=1e-3),
    }


def test_where_nothing_was_done_the_report_says_so(cascade: Cascade) -> None:
    found = cascade.run(blocks(0.8, 0.8))
    assert found.to_json()["geometry"]["working_grid"] is None
    assert "W_RESAMPLED" not in codes(found)


# What is refused


def test_slices_that_would_become_too_large_are_refused(cascade: Cascade) -> None:
    scan = volume(np.zeros((1, 1024, 64), dtype=np.int16), 1.8, 1.8)
    with pytest.raises(InputError, match=r"slices of 1024 x 64 pixels, resampled to 2322 x 145, are larger than 2048"):
        cascade.run(scan)


def test_slices_too_large_of_their_own_may_be_small_enough_resampled(cascade: Cascade) -> None:
    scan = volume(np.full((1, 2100, 64), AIR, dtype=np.int16), 0.3, 0.3)
    assert cascade.run(scan).working_grid is not None
    with pytest.raises(InputError, match="are larger than 2048"):
        trained_on(cascade, None).run(scan)
