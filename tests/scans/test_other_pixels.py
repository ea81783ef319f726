"""Scans on pixels that were not trained on: the same anatomy is found and it is said how, or they are refused."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from cascade_rt.bundles.bundle import embedded_bundle_path
from cascade_rt.common.metrics import dice
from cascade_rt.data import demo_patient
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import InputError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade, open_cascade
from cascade_rt.run.cohort.cases import plan_cases
from cascade_rt.run.inference import infer_file
from cascade_rt.run.scan_run import segment_voxels
from cascade_rt.scans.pixel_grid import OwnPixels, ResampledPixels
from cascade_rt.scans.search import SearchOptions
from cascade_rt.scans.volume import Volume
from tests.cohort_files import fake_cascade, trained_on

AIR, FAT, ORGAN, TUMOR = -1000, -100, 100, 200
TRAINED_MM = (0.7, 0.9)


def volume(voxels: np.ndarray, row_mm: float, col_mm: float) -> Volume:
    return Volume.from_array(voxels.T, np.diag([-col_mm, -row_mm, 2.5, 1.0]))


def blocks(row_mm: float, col_mm: float) -> Volume:
    """A body of fat in air, 80 mm by 100 mm, with an organ in the middle slices and a tumor in it."""
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
    """Without networks: it finds organ and tumor by their HU, whatever the pixels."""
    return trained_on(fake_cascade(margin=2), TRAINED_MM)


def same_anatomy(found: np.ndarray, scan: Volume) -> bool:
    """Whether labels are those of the blocks, but for a pixel at their edges."""
    return all(dice(found >= lowest, expected(scan) >= lowest) > 0.9 for lowest in (1, 2))


# What is done


@pytest.mark.parametrize("sides", [(0.4, 0.4), (1.1, 1.1), (0.8, 1.2), (1.25, 0.5)])
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


@pytest.mark.parametrize("sides", [(0.4, 0.4), (1.1, 1.1)])
def test_kept_probabilities_lie_on_the_scan_s_own_grid(cascade: Cascade, sides: tuple[float, float]) -> None:
    scan = blocks(*sides)
    found = cascade.run(scan, keep_probabilities=True)
    assert found.organ_prob is not None
    assert found.tumor_prob is not None
    np.testing.assert_array_equal(found.organ_prob[found.tumor_prob == 0] >= 0.5, found.mask[found.tumor_prob == 0])
    np.testing.assert_array_equal(found.tumor_prob >= 0.5, found.mask == 2)
    np.testing.assert_array_equal(found.mask, cascade.run(scan).mask)


@pytest.mark.parametrize("sides", [(0.4, 0.4), (1.1, 1.1), (0.8, 1.2)])
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


@pytest.mark.parametrize("sides", [(0.4, 0.4), (1.1, 1.1)])
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
    scan, config = blocks(1.1, 1.1), cascade.bundle.manifest.config
    np.testing.assert_array_equal(segment_voxels(cascade.engines, config, scan.voxels, None).mask, expected(scan))
    by_size = segment_voxels(cascade.engines, config, scan.voxels, (1.1, 1.1)).mask
    np.testing.assert_array_equal(by_size, cascade.run(scan).mask)


def test_a_file_that_is_being_read_is_treated_alike(cascade: Cascade, tmp_path: Path) -> None:
    scan = blocks(1.1, 1.1)
    nib.save(nib.Nifti1Image(scan.voxels.T, np.diag([-1.1, -1.1, 2.5, 1.0])), tmp_path / "scan.nii.gz")
    (case,) = plan_cases([tmp_path / "scan.nii.gz"], tmp_path)
    found = infer_file(cascade, case)
    np.testing.assert_array_equal(found.mask, cascade.run(scan).mask)
    assert "W_RESAMPLED" in codes(found)


# What is said


def test_what_was_done_stands_in_report_and_warnings(cascade: Cascade) -> None:
    found = cascade.run(blocks(1.1, 1.1))
    (warning,) = [warning for warning in found.warnings if warning.code == "W_RESAMPLED"]
    assert warning.message == (
        "its pixels measure 1.1 x 1.1 mm, but the networks were trained on 0.7 to 0.9 mm; "
        "slices were resampled to 0.795 x 0.794 mm, and the results back"
    )
    report = found.to_json()
    assert report["geometry"]["working_grid"] == {
        "shape": (101, 126),
        "pixel_mm": pytest.approx((0.795, 0.794), abs=1e-3),
    }


def test_a_scan_that_is_not_resampled_has_no_working_grid(cascade: Cascade) -> None:
    found = cascade.run(blocks(0.8, 0.8))
    assert found.to_json()["geometry"]["working_grid"] is None
    assert "W_RESAMPLED" not in codes(found)


# What is refused


def test_slices_that_would_become_too_large_are_refused(cascade: Cascade) -> None:
    scan = volume(np.zeros((1, 2040, 64), dtype=np.int16), 1.1, 1.1)
    with pytest.raises(InputError, match=r"slices of 2040 x 64 pixels, resampled to 2827 x 89, are larger than 2048"):
        cascade.run(scan)


def test_slices_too_large_of_their_own_may_be_small_enough_resampled(cascade: Cascade) -> None:
    scan = volume(np.full((1, 2100, 64), AIR, dtype=np.int16), 0.3, 0.3)
    assert cascade.run(scan).working_grid is not None
    with pytest.raises(InputError, match="are larger than 2048"):
        trained_on(cascade, None).run(scan)


# The same anatomy, with networks


@dataclass(frozen=True)
class Anatomy:
    """Slices with a pancreas, on the pixels that an embedded bundle knows."""

    hu: np.ndarray
    label: np.ndarray
    pixel_mm: float


@pytest.fixture(scope="module", params=[702, 704])
def anatomy(request: pytest.FixtureRequest) -> Anatomy:
    phantom = make_phantom(request.param, (8, 512, 512), tumor=True)
    chosen = np.flatnonzero((phantom.label == 2).any(axis=(1, 2)))[:3]
    rows, cols = (np.flatnonzero(phantom.label.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    corner = [int(np.clip((side[0] + side[-1]) // 2 - 112, 0, 512 - 224)) for side in (rows, cols)]
    part = (chosen, slice(corner[0], corner[0] + 224), slice(corner[1], corner[1] + 224))
    return Anatomy(phantom.hu[part], phantom.label[part], phantom.spacing_mm[1])


@pytest.fixture(scope="module")
def embedded() -> Iterator[Cascade]:
    with open_cascade(embedded_bundle_path("phantom"), backend="onnxruntime") as cascade:
        yield cascade


def scanned(field: np.ndarray, sides: tuple[float, float], pixel_mm: float) -> np.ndarray:
    """What a scanner shows of a field with pixels of other sides: nothing that is finer than those."""
    steps = [side / pixel_mm for side in sides]
    blurred = gaussian_filter(field.astype(np.float32), (0, *(0.35 * step * (step > 1) for step in steps)))
    zoom_by = [round(length / step) / length for length, step in zip(field.shape[1:], steps, strict=True)]
    return zoom(blurred, (1, *zoom_by), order=1, mode="nearest", grid_mode=True)


def scores(cascade: Cascade, anatomy: Anatomy, sides: tuple[float, float]) -> list[float]:
    """Dice of organ and tumor, on the pixels of the scan."""
    hu = np.rint(scanned(anatomy.hu, sides, anatomy.pixel_mm)).astype(np.int16)
    mask = cascade.run(volume(hu, *sides)).mask
    labels = [scanned(anatomy.label >= lowest, sides, anatomy.pixel_mm) >= 0.5 for lowest in (1, 2)]
    return [dice(mask >= lowest, label) for lowest, label in zip((1, 2), labels, strict=True)]


def sides_of(pixels: str, anatomy: Anatomy) -> tuple[float, float]:
    """Sides in mm, of which the number of pixels over a whole slice is another way to say it."""
    if pixels in {"256", "1024"}:
        return (anatomy.pixel_mm * 512 / int(pixels),) * 2
    row_mm, _, col_mm = pixels.partition(" x ")
    return float(row_mm), float(col_mm or row_mm)


def on_its_pixels(cascade: Cascade, anatomy: Anatomy) -> Cascade:
    return trained_on(cascade, (anatomy.pixel_mm / 1.1, anatomy.pixel_mm * 1.1))


@pytest.mark.parametrize("pixels", ["0.5", "0.8", "1.0", "1024", "0.8 x 1.2"])
def test_the_same_anatomy_is_found_on_other_pixels(embedded: Cascade, anatomy: Anatomy, pixels: str) -> None:
    cascade = on_its_pixels(embedded, anatomy)
    native = scores(cascade, anatomy, (anatomy.pixel_mm, anatomy.pixel_mm))
    found = scores(cascade, anatomy, sides_of(pixels, anatomy))
    assert min(native) > 0.8
    assert all(there >= here - 0.03 for there, here in zip(found, native, strict=True)), (found, native)


@pytest.mark.parametrize("pixels", ["1.6 x 1.6", "256", "5.0 x 0.8"])
def test_pixels_too_coarse_to_resample_are_refused(embedded: Cascade, anatomy: Anatomy, pixels: str) -> None:
    with pytest.raises(InputError, match="too coarse for networks trained on") as refused:
        scores(on_its_pixels(embedded, anatomy), anatomy, sides_of(pixels, anatomy))
    assert refused.value.code == "E_COARSE"


# The same patients


@pytest.fixture(scope="module")
def patients() -> Anatomy:
    """Slices of patients that the embedded bundle was not trained on."""
    voxels = [np.asarray(nib.load(file).dataobj).transpose(2, 1, 0) for file in (demo_patient.SCAN, demo_patient.LABEL)]
    return Anatomy(*voxels, pixel_mm=0.8)


@pytest.fixture(scope="module")
def for_patients() -> Iterator[Cascade]:
    with open_cascade(embedded_bundle_path("patients"), backend="onnxruntime") as cascade:
        yield cascade


@pytest.fixture(scope="module")
def native_dice(for_patients: Cascade, patients: Anatomy) -> float:
    return scores(for_patients, patients, (0.8, 0.8))[0]


@pytest.mark.parametrize("pixels", ["0.5", "1.0", "1.6", "256", "1024", "0.8 x 1.2", "3.0"])
def test_the_pancreas_of_patients_is_found_on_other_pixels(
    for_patients: Cascade, patients: Anatomy, native_dice: float, pixels: str
) -> None:
    assert native_dice > 0.75
    assert scores(for_patients, patients, sides_of(pixels, patients))[0] >= native_dice - 0.03


def test_a_coronal_reformat_of_patients_is_refused(for_patients: Cascade, patients: Anatomy) -> None:
    with pytest.raises(InputError, match="a coronal or sagittal reformat") as refused:
        scores(for_patients, patients, (5.0, 0.8))
    assert refused.value.code == "E_COARSE"


def test_a_coronal_file_of_fine_slices_is_as_good_as_an_axial_one(cascade: Cascade) -> None:
    scan = blocks(1.1, 1.1)
    coronal = scan.voxels.transpose(2, 0, 1)
    affine = np.array([[-1.1, 0, 0, 0], [0, 0, -1.1, 0], [0, 2.5, 0, 0], [0, 0, 0, 1]])
    found = cascade.run(Volume.from_array(coronal, affine))
    np.testing.assert_array_equal(found.mask, cascade.run(scan).mask)


def test_a_coronal_file_of_thick_slices_is_refused(cascade: Cascade) -> None:
    scan = blocks(5.0, 0.8)
    affine = np.array([[-0.8, 0, 0, 0], [0, 0, -5.0, 0], [0, 0.8, 0, 0], [0, 0, 0, 1]])
    with pytest.raises(InputError, match=r"its pixels measure 5 x 0\.8 mm in axial slices, .* a coronal or sagittal"):
        cascade.run(Volume.from_array(scan.voxels.transpose(2, 0, 1), affine))
