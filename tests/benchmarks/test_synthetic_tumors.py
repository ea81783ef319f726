"""Measuring on synthetic tumors: known masks have known figures, and tumors lie where the gland is."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.patients.cases import Case, Patient
from benchmarks.patients.scores import Bootstrap
from benchmarks.synthetic_tumors import FALSE_LESION_MM2, main, make_tumors, summaries
from cascade_rt.bundles.bundle import embedded_bundle_path
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.scans.volume import Volume


def slices_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Even tissue with a gland in all slices but the last, `[z, row, col]`."""
    truth = np.zeros((count, 192, 192), dtype=bool)
    truth[:-1, 70:110, 50:140] = True
    hu = np.random.default_rng(0).normal(40, 8, truth.shape)
    hu[truth] += 60
    return hu.astype(np.int16), truth


def line(dice: list[float], diameter_mm: list[float], false_lesions: int = 0) -> dict[str, object]:
    return {"dice": dice, "diameter_mm": diameter_mm, "false_lesions": false_lesions, "healthy_slices": 5}


def test_large_tumors_are_also_averaged_alone() -> None:
    lines = list(summaries([line([0.2, 0.8], [10.0, 20.0]), line([0.6], [16.0])], Bootstrap()))

    found = {one["tumors"]: (one["count"], one["dice"]) for one in lines if one["kind"] == "summary"}
    assert found == {"all": (3, pytest.approx(1.6 / 3)), "large": (2, pytest.approx(0.7))}


def test_a_tumor_of_which_nothing_is_found_is_missed() -> None:
    lines = list(summaries([line([0.0, 0.8], [10.0, 20.0]), line([0.0], [16.0])], Bootstrap()))

    assert [one["missed"] for one in lines if one["kind"] == "summary"] == [2, 1]


def test_false_lesions_are_counted_for_ten_healthy_slices() -> None:
    lines = list(summaries([line([1.0], [20.0], 2), line([1.0], [20.0], 1)], Bootstrap()))

    assert lines[-1]["per_ten_slices"] == pytest.approx(3.0)


def test_half_a_millilitre_is_a_ball_of_ten_millimetres() -> None:
    assert pytest.approx(9.85, abs=0.01) == 2 * np.sqrt(FALSE_LESION_MM2 / np.pi)


def test_tumors_are_made_only_inside_the_gland() -> None:
    hu, truth = slices_of(4)
    volume = Volume.from_array(hu.T, np.diag([-0.8, -0.8, 1.0, 1.0]))
    patient = Patient(Case("PANCREAS_0051", "slices", Path("image"), Path("label")), volume, truth)

    made = make_tumors(patient, TumorRecipe(), np.random.default_rng(0))

    assert set(made.slices) <= {0, 1, 2}
    assert all(tumor[70:110, 50:140].any() for tumor in made.tumor)


def test_a_folder_of_patients_is_measured_through_a_bundle(tmp_path: Path) -> None:
    hu, truth = slices_of(3)
    for kind, array in (("images", hu), ("labels", truth.astype(np.uint8))):
        (tmp_path / kind).mkdir()
        image = nib.Nifti1Image(array.T, np.diag([-0.8, -0.8, 1.0, 1.0]))
        nib.save(image, tmp_path / kind / "PANCREAS_0051.nii.gz")
    output = tmp_path / "results.jsonl"

    result = CliRunner().invoke(main, [str(embedded_bundle_path("phantom")), str(tmp_path), "-o", str(output)])

    assert result.exit_code == 0, result.output
    lines = [json.loads(text) for text in output.read_text().splitlines()]
    assert [one["kind"] for one in lines] == ["machine", "case", "summary", "summary", "false_lesions"]
    assert lines[1]["healthy_slices"] == 3
