"""`infer --save-probabilities`: one more file, and nothing else changes."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.run.case import Case
from cascade_rt.run.cohort.cases import plan_cases
from cascade_rt.run.extra_results import ExtraResult
from cascade_rt.run.inference import infer_file
from cascade_rt_cli.infer import infer
from tests.cohort_files import HU, fake_cascade, save_labels

LABELS = np.zeros((12, 64, 64), dtype=np.uint8)
LABELS[3:9, 20:40, 20:40] = 1
LABELS[5:7, 25:30, 25:30] = 2


def results(folder: Path, target: Any, *extras: ExtraResult) -> Case:
    case = Case.in_folder(save_labels(folder / "scan.nii.gz", HU[LABELS]), folder / "out", "scan", extras=extras)
    infer_file(fake_cascade(target=target), case)
    return case


@pytest.mark.parametrize("target", ["tumor", "organ"])
def test_mask_and_report_stay_the_same(target: Any, tmp_path: Path) -> None:
    without, with_maps = (
        results(tmp_path / name, target, *extras) for name, extras in (("a", ()), ("b", ("probabilities",)))
    )
    assert without.mask.read_bytes() == with_maps.mask.read_bytes()
    reports = [json.loads(case.report.read_text()) for case in (without, with_maps)]
    for report in reports:
        del report["timings_s"], report["wall_s"]
    assert reports[0] == reports[1]


def test_the_file_lies_beside_the_mask_and_agrees_with_it(tmp_path: Path) -> None:
    case = results(tmp_path, "tumor", "probabilities")
    found = np.asarray(nib.load(tmp_path / "out" / "scan_seg_prob.nii.gz").dataobj) >= 0.5
    mask = np.asarray(nib.load(case.mask).dataobj)
    np.testing.assert_array_equal(found[..., 0] | found[..., 1], mask >= 1)
    np.testing.assert_array_equal(found[..., 1], mask == 2)


def test_files_of_probabilities_are_not_taken_for_scans(tmp_path: Path) -> None:
    results(tmp_path, "tumor", "probabilities")
    save_labels(tmp_path / "out" / "likely_prob.nii.gz", HU[LABELS])
    assert [case.scan.name for case in plan_cases([tmp_path / "out"], tmp_path / "again")] == ["likely_prob.nii.gz"]


def test_the_flag_asks_for_the_file() -> None:
    context = infer.make_context("infer", ["scan.nii.gz", "--save-probabilities"])
    assert context.params["probabilities"] is True
