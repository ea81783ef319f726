"""DICOM results on the command line: refusals name flags, and say what can be done."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascade_rt_cli.main import main
from tests.cohort_files import HU, save_labels
from tests.run.test_dicom_results import LABELS


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return save_labels(tmp_path / "scan.nii.gz", HU[LABELS])


def infer(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("flag", ["--dicom-seg", "--dicom-seg-labelmap", "--rtstruct"])
def test_a_scan_that_is_no_dicom_is_refused_with_its_code(scan: Path, flag: str) -> None:
    done = infer(scan, flag, "--bundle", "phantom", "--backend", "onnxruntime")
    assert done.exit_code == 4
    assert "error[E_NOT_DICOM]: scan.nii.gz: was not read from DICOM" in done.stderr
    assert [path.name for path in scan.parent.iterdir()] == ["scan.nii.gz"]


def test_a_report_without_its_segmentation_is_refused_by_the_flags(scan: Path) -> None:
    done = infer(scan, "--dicom-sr")
    assert done.exit_code == 2
    assert "--dicom-sr: refers to another result that was not asked for; add --dicom-seg" in done.stderr


def test_two_kinds_of_segmentation_are_refused_by_the_flags(scan: Path) -> None:
    done = infer(scan, "--dicom-seg", "--dicom-seg-labelmap")
    assert done.exit_code == 2
    assert "--dicom-seg-labelmap: would have the same name as --dicom-seg; choose one of them" in done.stderr
