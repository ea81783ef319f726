"""On real CT: a stage-1 network learns five slices by heart, shown through export and `cascade-rt evaluate`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cascade_rt.config import load_config
from cascade_rt.data.slices import Case
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import read_mask
from cascade_rt.training.loop import train
from cascade_rt_cli.main import main
from cascade_rt_export.bundle_export import export_bundle
from cascade_rt_export.calibration import scan_calibration

EPOCHS = 120
"""Of five patches each. On one core they take less than three minutes."""


def cohort(sample_ct: Path, name: str, folder: Path) -> Path:
    """One NIH case in folders of images and labels, as `cascade-rt evaluate` takes it."""
    for kind, source in (("images", f"{name}.nii.gz"), ("labels", f"{name}_label.nii.gz")):
        (folder / kind).mkdir(parents=True)
        shutil.copy(sample_ct / "nih_pancreas_ct" / source, folder / kind / f"{name}.nii.gz")
    return folder


@pytest.mark.slow
def test_the_stage_1_network_learns_a_real_case_by_heart(
    sample_ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = sample_ct / "nih_pancreas_ct" / "case1.nii.gz"
    volume = read_volume(scan)
    label = read_mask(scan.with_name("case1_label.nii.gz"))
    cascade, config = load_config(variant="m")
    cascade = replace(cascade, base_width=8, target="organ")
    config = replace(config, epochs=(EPOCHS, 0, 0), slices="all", batch_size=1, learning_rate=3e-3)
    case = Case("case1", volume.voxels, label, volume.spacing_mm)
    checkpoint = train([case], tmp_path / "run", cascade, config, data="NIH Pancreas-CT, case 1")
    export_bundle(checkpoint, tmp_path / "bundle", half=False, calibration=scan_calibration([scan]))
    dice = {}
    for name in ("case1", "case2"):
        folder, report = cohort(sample_ct, name, tmp_path / name), tmp_path / f"{name}.json"
        arguments = ["evaluate", "--images", folder / "images", "--labels", folder / "labels", "-o", report]
        result = CliRunner().invoke(main, [str(argument) for argument in [*arguments, "--bundle", tmp_path / "bundle"]])
        assert result.exit_code == 0, result.output
        scores = json.loads(report.read_text())["aggregates"]["organ"]
        dice[name] = scores["per_case"]["positive"]["dice"]["mean"]
    with capsys.disabled():
        click.echo(f"\nDice of case 1, trained on: {dice['case1']:.3f}; of case 2, never seen: {dice['case2']:.3f}")
    assert dice["case1"] >= 0.90
