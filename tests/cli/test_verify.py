"""`cascade-rt verify` measures, prints, and fails where a limit is missed."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.comparison import Agreement
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt_cli.main import main


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    write_phantom_files(make_phantom(5, (6, 96, 96)), folder / "scan.nii.gz", folder / "label.nii.gz")
    return folder / "scan.nii.gz"


def verify(bundle: Bundle, scan: Path, *options: str) -> Result:
    arguments = ["verify", str(bundle.path), "--calibrate", str(scan), "--backend", "onnxruntime", *options]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_an_engine_that_agrees_passes_and_is_described(bundle: Bundle, scan: Path) -> None:
    result = verify(bundle, scan, "--precision", "fp32")
    assert result.exit_code == 0, result.output
    assert "6 of scans scan.nii.gz" in result.stdout


def test_json_holds_what_was_measured(bundle: Bundle, scan: Path) -> None:
    found = json.loads(verify(bundle, scan, "--json").stdout)
    assert found["engine"]["precision"] == "fp32"
    assert found["organ"]["mask_dice"] == 1.0


def test_a_missed_limit_is_one_sentence_and_exit_code_5(bundle: Bundle, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text("[fp16]\nmean_error = 0\n")
    result = verify(bundle, scan, "--precision", "fp16", "--limits", str(tmp_path / "limits.toml"))
    assert result.exit_code == 5
    assert "in fp16 on onnxruntime: probabilities of the organ differ from PyTorch" in result.stderr


def test_nan_in_a_batch_is_shown_and_fails(bundle: Bundle, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade_rt_export.gate.compare_slots", lambda _: Agreement(1, max_error=math.nan))
    result = verify(bundle, scan, "--precision", "fp32")
    assert result.exit_code == 5
    assert "largest difference between positions nan" in result.stdout
    assert "stage1 returns different outputs for one input" in result.stderr
