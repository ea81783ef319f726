"""`cascade-rt infer` with options that leave something out: the report says what."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from click.testing import CliRunner

from cascade_rt_cli.main import main
from tests.cohort_files import AFFINE, save_labels


def test_both_options_reach_the_search_and_its_report(tmp_path: Path) -> None:
    voxels = np.full((96, 96, 6), -1000, dtype=np.int16)
    voxels[20:70, 20:70] = np.random.default_rng(0).integers(-100, 240, (50, 50, 6))
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "scan.nii.gz")
    arguments = ["infer", str(tmp_path / "scan.nii.gz"), "-o", str(tmp_path), "--z-search", "2", "--body-box"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    search = json.loads((tmp_path / "scan_seg.json").read_text())["search"]
    assert (result.exit_code, search["first_every"]) == (0, 2)
    assert search["body_box"] == {"row": 0, "col": 0, "height": 96, "width": 96}
    assert "the mask may differ from that of a full search" in result.stdout


def test_scattered_slices_are_reported_as_such(tmp_path: Path) -> None:
    save_labels(tmp_path / "scan.nii.gz", np.random.default_rng(0).integers(-100, 240, (3, 70, 70)).astype(np.int16))
    arguments = ["infer", str(tmp_path / "scan.nii.gz"), "-o", str(tmp_path), "--bundle", "phantom", "--scattered"]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    report = json.loads((tmp_path / "scan_seg.json").read_text())
    assert report["slices"]["scattered"]
    assert report["islands"]["components"] is None


def test_a_search_by_neighbours_is_refused_for_scattered_slices(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["infer", str(tmp_path / "scan.nii.gz"), "--scattered", "--z-search", "2"])
    assert result.exit_code == 2
    assert "--z-search relies on adjacent slices, and with --scattered there are none" in result.stderr
