"""The evaluation as JSON and CSV: complete, plain, and honest about what is undefined."""

import csv
import json
from pathlib import Path

import pytest

from cascade_rt.errors import OutputExistsError
from cascade_rt.measuring.evaluation_report import case_rows, evaluation_json, save_case_table, save_report
from tests.cohort_files import VOXEL_ML, block, fake_cascade, save_cohort, truncate
from tests.measuring.test_evaluation import NOTHING, ORGAN, TUMOR, evaluated, random_cases


def test_the_report_is_json_without_nan(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, {"a": (NOTHING, NOTHING), "b": (TUMOR, TUMOR)}, baseline=fake_cascade())
    save_report(evaluation, tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text) == evaluation_json(evaluation)
    assert "NaN" not in text


def test_the_report_says_what_computed_and_what_for(tmp_path: Path) -> None:
    report = evaluation_json(evaluated(tmp_path, {"a": (ORGAN, ORGAN)}))
    assert (report["report_version"], report["intended_use"]) == (2, "Tests only.")
    assert report["provenance"]["engine"]["backend"] == "fake"
    assert report["provenance"]["bundle"]["sha256"] == "0" * 64


def test_the_report_holds_both_sets_of_slices_and_cases(tmp_path: Path) -> None:
    aggregates = evaluation_json(evaluated(tmp_path, random_cases(0)))["aggregates"]
    for target in ("organ", "tumor"):
        assert aggregates[target]["per_slice"].keys() == aggregates[target]["per_case"].keys() == {"positive", "all"}
    assert aggregates["tumor"]["per_case"]["positive"]["dice"]["count"] == 2
    assert aggregates["tumor"]["per_case"]["all"]["dice"]["count"] == 3


def test_pooled_scores_come_with_their_voxels(tmp_path: Path) -> None:
    pooled = evaluation_json(evaluated(tmp_path, {"a": (ORGAN, ORGAN)}))["aggregates"]["organ"]["pooled"]
    assert pooled["voxels"] == {
        "true_positive": 1,
        "false_positive": 0,
        "false_negative": 0,
        "true_negative": 4 * 8 * 8 - 1,
    }


def test_labels_without_tumors_leave_the_tumor_out(tmp_path: Path) -> None:
    report = evaluation_json(evaluated(tmp_path, {"a": (TUMOR, ORGAN)}))
    (row,) = report["cases"]
    assert (report["tumor_in_labels"], report["aggregates"]["tumor"]) == (False, None)
    told = {key: value for key, value in row.items() if key.startswith(("tumor", "crop")) and value is not None}
    assert told == {"tumor_found_ml": pytest.approx(VOXEL_ML)}


def test_a_bundle_that_does_not_look_for_the_organ_leaves_it_out(tmp_path: Path) -> None:
    report = evaluation_json(evaluated(tmp_path, {"a": (TUMOR, TUMOR)}, stage1="none"))
    (row,) = report["cases"]
    assert report["aggregates"]["organ"] is None
    told = {key: value for key, value in row.items() if key.startswith("organ_") and value is not None}
    assert told == {"organ_true_ml": pytest.approx(VOXEL_ML)}


def test_a_row_has_true_and_found_values(tmp_path: Path) -> None:
    found = block((1, 2, 3), (1, 2, 4), label=2)
    (row,) = case_rows(evaluated(tmp_path, {"a": (found, TUMOR)}))
    assert (row["case"], row["slices"], row["tumor_detected"]) == ("a", 4, True)
    assert (row["tumor_true_ml"], row["tumor_found_ml"]) == (pytest.approx(VOXEL_ML), pytest.approx(2 * VOXEL_ML))
    assert (row["tumor_dice"], row["tumor_sensitivity"]) == (pytest.approx(2 / 3), 1.0)


def test_undefined_values_are_null_in_json_and_empty_in_csv(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, {"free": (ORGAN, ORGAN), "with": (TUMOR, TUMOR)})
    save_case_table(evaluation, tmp_path / "cases.csv")
    free = case_rows(evaluation)[0]
    written = next(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    for key in ("tumor_sensitivity", "tumor_detected", "crop_recall"):
        assert (free[key], written[key]) == (None, "")


def test_the_table_has_a_row_for_each_case(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, random_cases(0), baseline=fake_cascade())
    save_case_table(evaluation, tmp_path / "cases.csv")
    written = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert [row["case"] for row in written] == ["a", "b", "c"]
    assert [float(row["organ_dice"]) for row in written] == [row["organ_dice"] for row in case_rows(evaluation)]


def test_a_baseline_adds_columns_and_its_engine(tmp_path: Path) -> None:
    report = evaluation_json(evaluated(tmp_path, random_cases(0), baseline=fake_cascade()))
    assert report["baseline"]["engine"]["backend"] == "fake"
    assert report["baseline"]["dice_difference"]["tumor"] == {
        "cases": 2,
        "mean": 0.0,
        "interval_95": [0.0, 0.0],
        "worst": {"case": "a", "difference": 0.0},
    }
    assert {row["different_voxels_per_100_000"] for row in report["cases"]} == {0.0}


def test_a_single_case_has_a_difference_without_an_interval(tmp_path: Path) -> None:
    report = evaluation_json(evaluated(tmp_path, {"a": (TUMOR, TUMOR)}, baseline=fake_cascade()))
    assert report["baseline"]["dice_difference"]["tumor"]["interval_95"] is None


def test_failures_are_in_the_report(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"a": (ORGAN, ORGAN), "b": (ORGAN, ORGAN)})
    truncate(tmp_path / "images" / "b.nii.gz")
    (failure,) = evaluation_json(evaluated(tmp_path))["failures"]
    assert (failure["case"], "is truncated" in failure["error"]) == ("b", True)


def test_files_are_written_even_if_every_case_failed(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"a": (ORGAN, ORGAN)})
    truncate(tmp_path / "images" / "a.nii.gz")
    evaluation = evaluated(tmp_path, baseline=fake_cascade())
    save_report(evaluation, tmp_path / "report.json")
    save_case_table(evaluation, tmp_path / "cases.csv")
    assert json.loads((tmp_path / "report.json").read_text())["cases"] == []
    assert (tmp_path / "cases.csv").read_text() == ""


@pytest.mark.parametrize("save", [save_report, save_case_table])
def test_an_existing_file_is_kept_by_default(save, tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, {"a": (ORGAN, ORGAN)})
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputExistsError):
        save(evaluation, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
    save(evaluation, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").read_text() != "mine"


def test_why_a_case_failed_is_reported_without_its_folders(tmp_path: Path) -> None:
    ward = tmp_path / "DOE JOHN 19551224"
    save_cohort(ward, {"a": (ORGAN, ORGAN), "b": (ORGAN, ORGAN)})
    truncate(ward / "images" / "b.nii.gz")
    (failure,) = evaluation_json(evaluated(ward, {"a": (ORGAN, ORGAN)}))["failures"]
    assert failure["case"] == "b"
    assert failure["error"].startswith("b.nii.gz: ")
    assert "DOE" not in failure["error"]
