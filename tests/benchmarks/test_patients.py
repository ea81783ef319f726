"""Measuring on patients: known masks have known scores."""

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from scipy import ndimage
from scipy.spatial.distance import cdist

from benchmarks.patients.__main__ import main
from benchmarks.patients.cases import (
    Case,
    Patient,
    choose_cases,
    find_scans,
    find_slices,
    parts_without_organ,
    read_negatives,
    read_patient,
)
from benchmarks.patients.engines import agreement_of_all, agreement_with_reference, arm_names, keep_all_islands
from benchmarks.patients.measure import score_masks
from benchmarks.patients.pictures import FOUND_COLOR, TRUE_COLOR, draw_patient, shown_slices
from benchmarks.patients.scores import (
    Bootstrap,
    mean_over_cases,
    ratio_over_patients,
    slice_counts,
    three_aggregations,
)
from benchmarks.patients.shapes import largest_component, surface_scores
from benchmarks.patients.table import model_card
from cascade_rt.bundles.bundle import default_bundle_path, read_bundle
from cascade_rt.errors import InputError, UsageError
from cascade_rt.scans.volume import Volume

SPACING_MM = (2.5, 0.8, 0.8)
Bools = npt.NDArray[np.bool_]


def ball(
    radius_mm: float, shape: tuple[int, int, int] = (16, 44, 44), shift: tuple[int, int, int] = (0, 0, 0)
) -> Bools:
    """A ball in the middle of a volume of `SPACING_MM`, shifted by some voxels."""
    axes = [(np.arange(n) - n // 2 - s) * mm for n, s, mm in zip(shape, shift, SPACING_MM, strict=True)]
    z, row, col = np.meshgrid(*axes, indexing="ij")
    return z**2 + row**2 + col**2 <= radius_mm**2


def block(shape: tuple[int, int, int], *box: slice) -> Bools:
    mask = np.zeros(shape, dtype=bool)
    mask[box] = True
    return mask


def surface_mm(mask: Bools) -> npt.NDArray[np.float64]:
    """Places of the surface voxels, mm."""
    padded = np.pad(mask, 1)
    return np.argwhere(padded & ~ndimage.binary_erosion(padded)) * np.array(SPACING_MM)


def patient_of(truth: Bools, hu: npt.NDArray[np.int16] | None = None, case_set: str = "scans") -> Patient:
    voxels = np.full(truth.shape, 40, np.int16) if hu is None else hu
    affine = np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1.0])
    affine[2, 3] = -100.0
    case = Case("img0007", case_set, Path("image"), Path("label"))  # type: ignore[arg-type]
    return Patient(case, Volume.from_array(voxels.T, affine), truth)


def write_pair(image: Path, label: Path, hu: npt.NDArray[np.int16], truth: npt.NDArray[np.uint8]) -> None:
    """Write arrays `[z, row, col]` as NIfTI."""
    affine = np.diag([-0.8, -0.8, 2.5, 1.0])
    for path, array in ((image, hu), (label, truth)):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.T, affine), path)


# Scores


def test_three_aggregations_of_masks_with_known_counts() -> None:
    # Patient 1: slices with Dice 1 and 0 (missed); patient 2: one slice with Dice 0.5.
    truth_1, found_1 = np.zeros((2, 2, 4, 4), dtype=bool)
    truth_1[:, 0, :2] = True
    found_1[0, 0, :2] = True
    truth_2 = block((1, 4, 4), slice(None), slice(0, 1), slice(0, 2))
    found_2 = block((1, 4, 4), slice(None), slice(0, 1), slice(1, 3))
    patients = [slice_counts(found_1, truth_1), slice_counts(found_2, truth_2)]
    found = three_aggregations(patients, Bootstrap(resamples=200))
    assert found["per_slice"]["dice"]["value"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["per_slice"]["dice"]["count"] == 3
    assert found["per_case"]["dice"]["value"] == pytest.approx((2 * 2 / 6 + 0.5) / 2)
    assert found["pooled"]["dice"]["value"] == pytest.approx(2 * 3 / (6 + 4))
    assert found["pooled"]["sensitivity"]["value"] == pytest.approx(3 / 6)
    assert found["pooled"]["specificity"]["value"] == pytest.approx(41 / 42)


def test_slices_without_pancreas_count_per_case_but_not_per_slice() -> None:
    truth = block((2, 4, 4), slice(0, 1), slice(0, 2))
    found = block((2, 4, 4), slice(None), slice(0, 2))
    values = three_aggregations([slice_counts(found, truth)], Bootstrap(resamples=100))
    assert values["per_slice"]["dice"]["value"] == 1.0
    assert values["per_case"]["dice"]["value"] == pytest.approx(2 / 3)
    assert values["pooled"]["dice"]["interval_95"] is None


def test_a_ratio_of_means_has_the_interval_of_the_library() -> None:
    values, bootstrap = [0.2, 0.9, 0.7, 0.4, 0.6], Bootstrap(seed=3, resamples=300)
    estimate = mean_over_cases(values, bootstrap)
    value, interval = ratio_over_patients(values, [1.0] * 5, bootstrap)
    assert value == pytest.approx(estimate.value)
    assert interval == pytest.approx(estimate.interval)


def test_an_interval_is_over_patients_not_over_slices() -> None:
    one = slice_counts(np.ones((50, 1, 2), bool), np.ones((50, 1, 2), bool))
    other = slice_counts(np.zeros((50, 1, 2), bool), np.ones((50, 1, 2), bool))
    low, high = three_aggregations([one, other], Bootstrap())["per_slice"]["dice"]["interval_95"]
    assert (low, high) == (0.0, 1.0)


def test_undefined_values_are_left_out_of_a_mean() -> None:
    estimate = mean_over_cases([1.0, math.nan, 3.0], Bootstrap(resamples=100))
    assert (estimate.value, estimate.count) == (2.0, 2)
    assert mean_over_cases([math.nan], Bootstrap(resamples=100)).to_json() == {
        "value": None,
        "interval_95": None,
        "count": 0,
    }


# Surfaces and components


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 0, 0), (0, 3, -2)])
def test_surfaces_of_balls_are_as_far_apart_as_by_hand(shift: tuple[int, int, int]) -> None:
    found, truth = ball(13, shift=shift), ball(10)
    apart = cdist(surface_mm(found), surface_mm(truth))
    there, back = apart.min(axis=1), apart.min(axis=0)
    scores = surface_scores(found, truth, SPACING_MM)
    assert scores.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)
    within = np.count_nonzero(there <= 2.0) + np.count_nonzero(back <= 2.0)
    assert scores.dice == pytest.approx(within / (len(there) + len(back)), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("axis", "voxels", "mm"), [(0, 2, 5.0), (1, 5, 4.0), (2, 10, 8.0)])
def test_a_distance_is_in_millimetres_along_each_axis(axis: int, voxels: int, mm: float) -> None:
    truth = block((12, 30, 30), slice(2, 3), slice(4, 5), slice(4, 5))
    scores = surface_scores(np.roll(truth, voxels, axis), truth, SPACING_MM)
    assert scores.hd95_mm == pytest.approx(mm)
    assert scores.dice == 0.0


@pytest.mark.filterwarnings("ignore")
def test_equal_masks_have_no_distance_also_at_the_border_of_the_scan() -> None:
    mask = block((4, 6, 6), slice(None), slice(0, 3), slice(2, 6))
    scores = surface_scores(mask, mask, SPACING_MM)
    assert (scores.hd95_mm, scores.dice) == (0.0, 1.0)


def test_surfaces_of_empty_masks_are_undefined() -> None:
    empty, full = np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool)
    missed = surface_scores(empty, full, SPACING_MM)
    assert math.isnan(missed.hd95_mm)
    assert missed.dice == 0.0
    assert math.isnan(surface_scores(empty, empty, SPACING_MM).dice)


def test_the_largest_component_is_kept_and_corners_join() -> None:
    mask = block((4, 8, 8), slice(0, 2), slice(0, 2), slice(0, 2))
    mask[2, 2, 2] = True
    mask[3, 7, 7] = True
    largest, components = largest_component(mask)
    assert components == 2
    assert np.count_nonzero(largest) == 9
    assert not largest[3, 7, 7]
    assert largest_component(np.zeros((2, 2, 2), bool))[1] == 0


@pytest.mark.filterwarnings("ignore")
def test_a_scan_is_scored_with_and_without_its_islands() -> None:
    truth = block((8, 16, 16), slice(2, 5), slice(4, 8), slice(4, 8))
    found = truth | block((8, 16, 16), slice(7, 8), slice(14, 16), slice(14, 16))
    raw, largest = score_masks(patient_of(truth), found)
    voxel_ml = 2.5 * 0.8 * 0.8 / 1000
    assert (raw.kept, raw.values["components"]) == ("all", 2)
    assert raw.values["volume_error_ml"] == pytest.approx(4 * voxel_ml)
    assert (largest.kept, largest.values["components"], largest.values["hd95_mm"]) == ("largest", 1, 0.0)
    assert sum(counts.false_positive for counts in largest.slices) == 0


def test_a_stack_of_slices_has_no_components() -> None:
    truth = block((3, 8, 8), slice(None), slice(2, 4), slice(2, 4))
    (only,) = score_masks(patient_of(truth, case_set="slices"), truth)
    assert (only.kept, only.values) == ("all", {})


# Cases


def test_parts_without_pancreas_keep_a_gap_and_their_place() -> None:
    hu = np.broadcast_to(np.arange(10, dtype=np.int16)[:, None, None], (10, 4, 5)).copy()
    patient = patient_of(block((10, 4, 5), slice(3, 6), slice(1, 2), slice(1, 2)), hu)
    parts = dict(parts_without_organ(patient))
    assert parts["above"].voxels[:, 0, 0].tolist() == [7, 8, 9]
    assert parts["below"].voxels[:, 0, 0].tolist() == [0, 1]
    assert parts["above"].affine @ [0, 0, 0, 1] == pytest.approx(patient.volume.affine @ [7, 0, 0, 1])
    assert parts["above"].spacing_mm == pytest.approx(SPACING_MM)


def test_parts_that_would_be_empty_are_left_out() -> None:
    patient = patient_of(block((4, 3, 3), slice(1, 3), slice(0, 1)))
    assert list(parts_without_organ(patient)) == []


def test_scans_are_paired_as_btcv_names_them_in_one_folder(tmp_path: Path) -> None:
    for name in ("img0005", "label0005", "img0021", "label0021"):
        (tmp_path / f"{name}.nii.gz").touch()
    cases = find_scans(tmp_path, tmp_path, 6)
    assert [(case.name, case.label.name, case.organ) for case in cases] == [
        ("img0005", "label0005.nii.gz", 6),
        ("img0021", "label0021.nii.gz", 6),
    ]
    assert [case.name for case in choose_cases(cases, "1-10")] == ["img0005"]
    with pytest.raises(UsageError, match="cases '7': no such cases; there are img0005, img0021"):
        choose_cases(cases, "7")
    with pytest.raises(UsageError, match="'five' is not a number or range"):
        choose_cases(cases, "five")


def test_a_scan_without_labels_is_refused(tmp_path: Path) -> None:
    for name in ("img0005", "label0005", "img0021"):
        (tmp_path / f"{name}.nii.gz").touch()
    with pytest.raises(InputError, match="unpaired: img0021; add the missing files or remove these"):
        find_scans(tmp_path, tmp_path, 6)


def test_enlarged_copies_of_slices_do_not_count_twice(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name in ("PANCREAS_0051", "PANCREAS_0051_crop0"):
            (tmp_path / folder / f"{name}.nii.gz").touch()
    cases = find_slices(tmp_path)
    assert [(case.name, case.number) for case in cases] == [("PANCREAS_0051", 51)]


def test_a_missing_label_is_an_error(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-900, 200, (3, 64, 64)).astype(np.int16)
    image, label = tmp_path / "img0001.nii.gz", tmp_path / "label0001.nii.gz"
    write_pair(image, label, hu, np.ones((3, 64, 64), np.uint8))
    assert read_patient(Case("img0001", "scans", image, label)).truth.all()
    with pytest.raises(InputError, match="holds no label 6; pass the label value of the pancreas with --organ"):
        read_patient(Case("img0001", "scans", image, label, 6))


def test_negatives_are_read_upright(tmp_path: Path) -> None:
    image = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "none.npz", image=image)
    volume = read_negatives(tmp_path / "none.npz")
    assert np.array_equal(volume.voxels, image)
    np.savez(tmp_path / "other.npz", picture=image)
    with pytest.raises(InputError, match=r"is not an \.npz with an array 'image'"):
        read_negatives(tmp_path / "other.npz")


# Engines


def test_arms_are_each_backend_in_each_precision_and_the_reference() -> None:
    assert arm_names("onnxruntime", "fp32") == ["onnxruntime:fp32"]
    assert arm_names("onnxruntime", "fp32,fp16") == ["onnxruntime:fp32", "onnxruntime:fp16", "pytorch:fp32"]
    with pytest.raises(UsageError, match="unknown backend 'torch'"):
        arm_names("torch", "fp32")


def test_agreement_is_counted_beside_the_reference() -> None:
    reference = np.zeros((1, 2, 4), np.uint8)
    reference[0, 0] = 1
    other = reference.copy()
    other[0, 0, :2] = 0
    found = agreement_with_reference({"onnxruntime:fp32": other, "pytorch:fp32": reference})
    assert found == {"onnxruntime:fp32": {"voxels": 8, "different_voxels": 2, "dice": pytest.approx(2 / 3)}}
    empty = np.zeros_like(other)
    nothing = agreement_with_reference({"onnxruntime:fp32": empty, "pytorch:fp32": empty})
    assert nothing["onnxruntime:fp32"]["dice"] is None
    both = agreement_of_all([found, nothing])["onnxruntime:fp32"]
    assert (both["cases"], both["cases_with_a_mask"], both["different_voxels"]) == (2, 1, 2)
    assert agreement_with_reference({"onnxruntime:fp32": other}) == {}


def test_a_bundle_that_keeps_all_islands_is_left_as_it_is() -> None:
    bundle = read_bundle(default_bundle_path())
    assert getattr(keep_all_islands(bundle).manifest.config, "islands", "all") == "all"


# Pictures


def test_shown_slices_lie_in_the_pancreas_and_hold_the_largest() -> None:
    truth = block((40, 8, 8), slice(10, 31), slice(2, 4), slice(2, 4))
    truth[29] = True
    assert shown_slices(truth) == [14, 18, 22, 26, 29]
    assert shown_slices(block((3, 8, 8), slice(1, 2), slice(2, 4))) == [1]


def test_a_picture_has_both_outlines() -> None:
    truth = block((6, 64, 64), slice(1, 5), slice(20, 30), slice(20, 30))
    picture = np.asarray(draw_patient(patient_of(truth), np.roll(truth, 8, 2)))[40:]
    for color in (TRUE_COLOR, FOUND_COLOR):
        assert np.count_nonzero(np.abs(picture.astype(int) - color).max(axis=2) < 12) > 50


# All of it


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


@pytest.mark.filterwarnings("ignore")
def test_a_measurement_from_files_to_table(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    truth = np.zeros((6, 64, 64), np.uint8)
    truth[2:4, 20:40, 20:40] = 6
    hu = random.integers(-120, 200, truth.shape).astype(np.int16)
    write_pair(tmp_path / "btcv/img0005.nii.gz", tmp_path / "btcv/label0005.nii.gz", hu, truth)
    stack = tmp_path / "nih"
    for number in (51, 52):
        name = f"PANCREAS_{number:04}.nii.gz"
        write_pair(
            stack / "images" / name,
            stack / "labels" / name,
            hu.clip(0, 255),
            (truth[2:3] > 0).repeat(6, 0) * np.uint8(1),
        )
    np.savez(tmp_path / "negatives.npz", image=hu.clip(0, 255).astype(np.uint8))
    output, pictures = tmp_path / "patients.jsonl", tmp_path / "pictures"
    result = run(
        *(default_bundle_path(), "--slices", stack, "--scans", tmp_path / "btcv", tmp_path / "btcv", "--organ", 6),
        *("--without-organ", "--negatives", tmp_path / "negatives.npz", "--backends", "onnxruntime,pytorch"),
        *("--resamples", 100, "--pictures", pictures, "-o", output),
    )
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["kind"] for line in lines] == [
        *("machine", "case", "case", "case", "without_organ", "without_organ", "summary_without_organ"),
        *("negatives", "summary", "summary", "summary", "agreement"),
    ]
    machine = lines[0]
    assert machine["bundle"]["sha256"] == read_bundle(default_bundle_path()).sha256
    assert str(tmp_path) not in output.read_text()
    assert [line["slices"] for line in lines if line["kind"] == "without_organ"] == [1, 1]
    assert lines[-1]["engines"]["onnxruntime:fp32"]["different_voxels"] == 0
    names = {path.name for path in pictures.iterdir()}
    assert {"img0005.png", "PANCREAS_0051.png", "worst_scans.png", "worst_slices.png"} <= names
    assert "| slices of patients | per slice, 12 slices |" in result.output
    assert "100 bootstrap resamples of patients (seed 0)" in result.output
    assert next(iter(model_card(lines))) in result.output


def test_nothing_to_measure_is_an_error() -> None:
    result = run(default_bundle_path())
    assert result.exit_code == UsageError.exit_code
    assert "nothing to measure; pass --slices, --scans or --negatives" in result.output
