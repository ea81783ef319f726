"""`cascade-rt report`, and the page that `infer` writes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.bundles.bundle import Bundle
from cascade_rt_cli.main import main
from tests.volume_files import noisy_tissue


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def results(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scan and what `infer --report` has written."""
    folder = tmp_path_factory.mktemp("results")
    nib.save(nib.Nifti1Image(noisy_tissue(64, 64, 3), np.diag([-0.8, -0.8, 2.5, 1.0])), folder / "scan.nii.gz")
    assert run("infer", folder / "scan.nii.gz", "--bundle", bundle.path, "-o", folder, "--report").exit_code == 0
    return folder


def test_infer_writes_the_page_beside_the_mask(results: Path) -> None:
    assert (results / "scan_seg.html").read_text().startswith("<!DOCTYPE html>")


def test_report_writes_the_same_page_later(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run("report", results / "scan_seg.json", "--scan", results / "scan.nii.gz", "-o", page)
    assert done.exit_code == 0
    assert "page.html (" in done.stdout
    assert page.read_bytes() == (results / "scan_seg.html").read_bytes()


def test_a_page_is_not_replaced_unasked(results: Path) -> None:
    assert run("report", results / "scan_seg.json", "--scan", results / "scan.nii.gz").exit_code == 8


def test_another_scan_is_refused_and_leaves_nothing(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(noisy_tissue(64, 64, 3) + 1, np.diag([-0.8, -0.8, 2.5, 1.0])), other)
    done = run("report", results / "scan_seg.json", "--scan", other, "-o", tmp_path / "page.html")
    assert (done.exit_code, "E_OTHER_FILE" in done.stderr) == (4, True)
    assert not (tmp_path / "page.html").exists()


def test_a_missing_mask_is_named_with_its_flag(results: Path, tmp_path: Path) -> None:
    (tmp_path / "scan_seg.json").write_bytes((results / "scan_seg.json").read_bytes())
    done = run("report", tmp_path / "scan_seg.json", "--scan", results / "scan.nii.gz")
    assert (done.exit_code, "name the mask of this report with --mask" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    ("passed", "sentence"),
    [("scan_seg.nii.gz", "choose the .json file beside a mask"), ("nothing.json", "cannot be read")],
)
def test_a_report_that_is_missing_or_none_is_named_rather_than_a_mask(
    results: Path, passed: str, sentence: str
) -> None:
    done = run("report", results / passed, "--scan", results / "scan.nii.gz")
    assert (done.exit_code, sentence in done.stderr, f"{passed}: " in done.stderr) == (4, True, True)


def test_a_page_that_no_browser_would_open_is_refused(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    done = run("report", results / "scan_seg.json", "--scan", results / "scan.nii.gz", "-o", page)
    assert (done.exit_code, "ends in .html" in done.stderr, page.exists()) == (2, True, False)


@pytest.mark.parametrize("mask", ["scan_seg.nii.gz", "scan_seg.nii", "scan.seg.nrrd", "scan_seg.nrrd", "scan_seg.mha"])
def test_the_mask_beside_the_report_is_found_in_every_format(
    results: Path, bundle: Bundle, tmp_path: Path, mask: str
) -> None:
    pytest.importorskip("nrrd", reason="pynrrd is not installed")
    infer = ("infer", results / "scan.nii.gz", "--bundle", bundle.path, "-o", tmp_path / mask)
    assert run(*infer).exit_code == 0
    assert run("report", tmp_path / "scan_seg.json", "--scan", results / "scan.nii.gz").exit_code == 0


def test_programs_get_the_page_and_its_size(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("--scan", results / "scan.nii.gz", "-o", page, "--log-format", "json")
    event = json.loads(run("report", results / "scan_seg.json", *arguments).stdout)
    assert (event["event"], event["bytes"]) == ("page", page.stat().st_size)
