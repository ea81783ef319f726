"""Cohorts of DICOM studies: a case for each series, a journal that knows when their files have changed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.run.cohort.cases import holds_many, plan_cases
from cascade_rt.scans.dicom import find_series
from cascade_rt_cli.main import main
from tests.broken_scans import HU, ZIPPED
from tests.dicom_files import BODY, SliceFile, axial_slices, write_enhanced, write_series, zipped


@pytest.fixture(autouse=True)
def engines_without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded bundle, computed by engines that find an organ in everything above 50 HU."""
    monkeypatch.setattr(
        "cascade_rt.run.cascade.open_engines",
        lambda *_: Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75)),
    )


def slices(study: int, series: int = 1, **options: Any) -> list[SliceFile]:
    tags = (("StudyInstanceUID", f"1.2.{study}"), ("SeriesNumber", series))
    return axial_slices(HU, **{**BODY, "series": f"1.2.{study}.{series}", "changes": tags, **options})


def infer(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments), "--bundle", "phantom"], catch_exceptions=False)


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def names(root: Path, *, every_series: bool = True) -> list[str]:
    cases = plan_cases([root], root.parent / "out", every_series=every_series)
    assert all(case.refusal is None for case in cases)
    return [case.name for case in cases]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two studies, one of two series, an enhanced CT, an archive and a NIfTI file."""
    root = tmp_path / "in"
    write_series(root / "study1", slices(1))
    write_series(root / "study2" / "a", slices(2))
    write_series(root / "study2" / "b", slices(2, 5))
    write_enhanced(root / "study3" / "IM1", slices(3))
    zipped(write_series(tmp_path / "files", slices(4)), root / "study4.zip")
    (root / "scan.nii.gz").write_bytes(ZIPPED)
    return root


def test_each_series_of_a_folder_of_studies_is_a_case(cohort: Path) -> None:
    assert names(cohort) == ["scan", "study1", "study2/a", "study2/b", "study3", "study4"]


def test_series_of_one_folder_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "s", slices(1))
    for entry in slices(1, 4):
        entry.write(tmp_path / "in" / "s" / f"other{entry.number}.dcm")
    write_series(tmp_path / "in" / "t", slices(2))
    assert names(tmp_path / "in") == ["s_1", "s_4", "t"]


def test_a_series_divided_among_folders_is_one_case(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "s", slices(1), shuffled=True)
    write_series(tmp_path / "in" / "t", slices(2))
    assert names(tmp_path / "in") == ["s", "t"]


def test_a_series_that_is_there_twice_is_two_cases(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "s", slices(1))
    shutil.copytree(tmp_path / "in" / "s", tmp_path / "in" / "t")
    write_series(tmp_path / "in" / "u", slices(2))
    assert names(tmp_path / "in") == ["s", "t", "u"]


def test_a_list_names_studies(cohort: Path) -> None:
    (cohort / "list.txt").write_text("study2\nstudy4.zip\nscan.nii.gz\n")
    cases = plan_cases([cohort / "list.txt"], cohort.parent / "out", every_series=True)
    assert [case.name for case in cases] == ["study2_1", "study2_5", "study4", "scan"]


def test_a_folder_is_one_scan_if_it_holds_one_study_alone(cohort: Path) -> None:
    assert [holds_many(cohort / name) for name in ("study1", "study2", "study3")] == [False] * 3
    assert holds_many(cohort)
    shutil.copy(cohort / "scan.nii.gz", cohort / "study1")
    assert holds_many(cohort / "study1")


def test_a_damaged_series_is_a_case_that_fails(cohort: Path) -> None:
    path = next((cohort / "study1").iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    result = infer(cohort, "-o", cohort.parent / "out")
    assert result.exit_code == 3
    assert "study1: failed [E_TRUNCATED]" in result.stdout
    assert {entry["case"] for entry in journal(cohort.parent / "out") if entry["status"] == "done"} == {
        *("scan", "study2/a", "study2/b", "study3", "study4")
    }


def test_a_resumed_run_computes_only_what_has_changed(cohort: Path) -> None:
    out = cohort.parent / "out"
    assert infer(cohort, "-o", out).exit_code == 0
    assert all(entry["input_stamp"] for entry in journal(out) if entry["status"] == "done")
    again = infer(cohort, "-o", out, "--resume")
    assert again.exit_code == 0
    assert re.search(r"already done +6", again.stdout)
    write_series(cohort / "study1", [*slices(1)[:5]])
    (cohort / "study1" / "1-006.dcm").unlink()
    changed = infer(cohort, "-o", out, "--resume")
    assert changed.exit_code == 0
    assert nib.load(out / "study1_seg.nii.gz").shape[2] == 5
    assert journal(out)[-1]["case"] == "study1"


def test_files_are_read_only_where_their_stamps_have_changed(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = cohort.parent / "out"
    assert infer(cohort / "study1", "-o", out, "--resume").exit_code == 0
    read: list[Path] = []
    monkeypatch.setattr("cascade_rt.run.cohort.resume_state.record_scan", lambda path, _: read.append(path))
    assert infer(cohort / "study1", "-o", out, "--resume").exit_code == 0
    assert read == []


def test_verify_recognizes_the_files_by_their_content(cohort: Path) -> None:
    out = cohort.parent / "out"
    assert infer(cohort, "-o", out).exit_code == 0
    lines = len(journal(out))
    for folder in ("study1", "study2"):
        shutil.move(cohort / folder, cohort.parent / "kept")
        shutil.copytree(cohort.parent / "kept", cohort / folder)
        shutil.rmtree(cohort.parent / "kept")
    again = infer(cohort, "-o", out, "--resume", "--verify")
    assert again.exit_code == 0
    assert len(journal(out)) == lines


def test_the_same_files_have_the_same_hash_in_a_folder_and_in_an_archive(cohort: Path) -> None:
    zipped(cohort / "study1", cohort.parent / "study1.zip")
    reports = []
    for scan, out in ((cohort / "study1", "a"), (cohort.parent / "study1.zip", "b")):
        assert infer(scan, "-o", cohort.parent / out).exit_code == 0
        reports.append(json.loads((cohort.parent / out / "study1_seg.json").read_text())["input"])
    assert reports[0] == reports[1]


def test_a_study_with_several_series_lists_them_without_the_patient(cohort: Path) -> None:
    result = infer(cohort / "study2", "-o", cohort.parent / "mask.nii.gz")
    assert result.exit_code == 4
    expected = (
        "study2: contains 2 CT series; choose one by its number with --series: 1 (6 slices, 2.5 mm apart, without "
    )
    assert f"error[E_SERIES]: {expected}contrast), 5 (6 slices, 2.5 mm apart, without contrast)\n" in result.stderr


def test_series_is_not_for_folders_of_studies(cohort: Path) -> None:
    result = infer(cohort, "-o", cohort.parent / "out", "--series", "1")
    assert (result.exit_code, "--series chooses within one study" in result.stderr) == (2, True)


def test_cases_know_their_series(cohort: Path) -> None:
    (cohort / "scan.nii.gz").unlink()
    cases = plan_cases([cohort], cohort.parent / "out", every_series=True)
    assert [case.series for case in cases] == ["1.2.1.1", "1.2.2.1", "1.2.2.5", "1.2.3.1", "1.2.4.1"]


def test_evaluate_pairs_studies_with_labels_by_name(cohort: Path) -> None:
    labels = cohort.parent / "labels"
    labels.mkdir()
    (cohort / "scan.nii.gz").unlink()
    shutil.rmtree(cohort / "study2")
    shutil.rmtree(cohort / "study3")
    for name in ("study1", "study4"):
        image = nib.Nifti1Image((HU.T >= 50).astype(np.uint8), find_series(cohort / "study1").affine)
        nib.save(image, labels / f"{name}.nii.gz")
    arguments = ["evaluate", "--images", str(cohort), "--labels", str(labels), "--bundle", "phantom"]
    result = CliRunner().invoke(main, [*arguments, "-o", str(cohort.parent / "report.json")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads((cohort.parent / "report.json").read_text())
    assert sorted(case["case"] for case in report["cases"]) == ["study1", "study4"]
