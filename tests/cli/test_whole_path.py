"""From nothing to a mask with the commands of the README: train, export, infer, inspect, demo."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cascade_rt.bundles.bundle import default_bundle_path, embedded_bundle_path, read_bundle
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt_cli.main import main


def cascade_rt(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole_path")


@pytest.fixture(scope="module")
def training(folder: Path) -> Result:
    size = ("--shape", 16, 96, 96, "--cases", 1, "--base-width", 8, "--epochs", 1, 1, 1)
    return cascade_rt("train", "--dataset", "phantom", "-o", folder / "run", *size)


@pytest.fixture(scope="module")
def run(training: Result, folder: Path) -> Path:
    assert training.exit_code == 0, training.output
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path, scan: Path, folder: Path) -> Path:
    result = cascade_rt("export", run, "-o", folder / "bundle", "--no-fp16", "--calibrate", scan)
    assert result.exit_code == 0, result.output
    return folder / "bundle"


@pytest.fixture(scope="module")
def scan(folder: Path) -> Path:
    write_phantom_files(make_phantom(3, (16, 96, 96)), folder / "scan.nii.gz", folder / "label.nii.gz")
    return folder / "scan.nii.gz"


@pytest.mark.parametrize("epoch", ["1 S", "2 I", "3 J"])
def test_training_prints_the_three_losses_of_each_epoch(training: Result, epoch: str) -> None:
    losses = r"organ loss \d+\.\d+, tumor loss \d+\.\d+, boundary loss \d+\.\d+"
    assert re.search(f"epoch {epoch}: {losses}", training.output)


def test_a_trained_exported_bundle_segments_a_scan(exported: Path, scan: Path, tmp_path: Path) -> None:
    result = cascade_rt("infer", scan, "--bundle", exported, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    mask = nib.load(tmp_path / "scan_seg.nii.gz")
    assert mask.shape == nib.load(scan).shape
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


def test_a_phantom_bundle_says_what_it_is_in_console_and_report(exported: Path, scan: Path, tmp_path: Path) -> None:
    result = cascade_rt("infer", scan, "--bundle", exported, "-o", tmp_path)
    report = json.loads((tmp_path / "scan_seg.json").read_text())
    sentence = "trained on synthetic phantoms, not for clinical use"
    assert sentence in result.stdout
    assert sentence in report["intended_use"]


def test_a_finished_run_is_resumed_without_training_more(run: Path) -> None:
    before = (run / "checkpoint.safetensors").read_bytes()
    size = ("--shape", 16, 96, 96, "--cases", 1, "--base-width", 8, "--epochs", 1, 1, 1)
    assert cascade_rt("train", "-o", run, *size, "--resume").exit_code == 0
    assert (run / "checkpoint.safetensors").read_bytes() == before


def test_inspect_shows_the_training_and_the_parity(exported: Path) -> None:
    output = cascade_rt("inspect", exported).stdout
    assert "synthetic phantoms, seeds 0 to 0, 16 x 96 x 96 voxels, 3 epochs" in output
    assert "stage2 against PyTorch, largest error: tumor_prob" in output


def test_a_bundle_is_exported_again_with_other_corners_and_islands(exported: Path, scan: Path, tmp_path: Path) -> None:
    steady = tmp_path / "steady"
    other = ("--corner-grid", 32, "--islands", "largest", "--least-island-ml", 2)
    result = cascade_rt("export", exported, "-o", steady, "--no-fp16", "--calibrate", scan, *other)
    assert result.exit_code == 0, result.output
    first, second = (json.loads((path / "manifest.json").read_text()) for path in (exported, steady))
    assert second["config"]["crop"] == first["config"]["crop"] | {"corner_grid": 32}
    assert (second["config"]["islands"], second["config"]["least_island_ml"]) == ("largest", 2.0)
    assert (second["training"], second["files"]) == (first["training"], first["files"])
    shown = cascade_rt("inspect", steady).stdout
    assert "corners on multiples of 32" in shown
    assert "largest of at least 2 ml" in shown


def test_corners_that_do_not_fit_the_sides_are_refused(exported: Path, tmp_path: Path) -> None:
    result = cascade_rt("export", exported, "-o", tmp_path / "bundle", "--corner-grid", 24)
    assert result.exit_code == 2, result.output
    assert "corner_grid must divide cascade.crop.grid, got 24" in result.stderr


def test_inspect_prints_the_manifest_as_json(exported: Path) -> None:
    document = json.loads(cascade_rt("inspect", exported, "--json").stdout)
    assert document == json.loads((exported / "manifest.json").read_text())


@pytest.fixture(scope="module")
def demo(folder: Path) -> Result:
    return cascade_rt("demo", "-o", folder / "demo", "--shape", 16, 96, 96)


def bundles_of_demo(folder: Path) -> list[str]:
    reports = (json.loads((folder / f"{name}_seg.json").read_text()) for name in ("patient", "tumor", "phantom"))
    return [report["provenance"]["bundle"]["sha256"] for report in reports]


def test_demo_leaves_scans_labels_masks_reports_and_pictures(demo: Result, folder: Path) -> None:
    assert demo.exit_code == 0, demo.output
    kinds = (".nii.gz", "_label.nii.gz", "_seg.json", "_seg.nii.gz", "_seg.png")
    expected = {f"{name}{kind}" for name in ("patient", "tumor", "phantom") for kind in kinds} | {
        "patient_ATTRIBUTION.md"
    }
    assert {path.name for path in (folder / "demo").iterdir()} == expected
    for name in ("patient", "tumor", "phantom"):
        with Image.open(folder / "demo" / f"{name}_seg.png") as picture:
            assert picture.width > 600


def test_demo_prints_the_dice_of_each_patient_and_where_they_come_from(demo: Result) -> None:
    assert re.search(r"Dice against an expert's outlines: (\d\.\d\d, ){5}\d\.\d\d; mean \d\.\d\d\n", demo.stdout)
    assert "NIH Pancreas-CT (Roth et al.), CC BY 3.0, see " in demo.stdout


def test_demo_prints_the_dice_of_each_tumor_and_a_disclaimer(demo: Result) -> None:
    scores = re.search(r"Dice against the synthetic tumors: ((?:\d\.\d\d, ){5}\d\.\d\d); mean", demo.stdout)
    assert scores is not None
    assert max(map(float, scores[1].split(", "))) > 0.5
    assert "not for diagnosis. Trained on synthetic tumors" in demo.stdout


@pytest.mark.usefixtures("demo")
def test_demo_uses_the_bundle_made_for_each_of_its_scans(folder: Path) -> None:
    bundles = (default_bundle_path(), embedded_bundle_path("patients-tumor"), embedded_bundle_path("phantom"))
    expected = [read_bundle(path).sha256 for path in bundles]
    assert bundles_of_demo(folder / "demo") == expected


def test_demo_takes_a_bundle_that_is_named_for_everything(exported: Path, tmp_path: Path) -> None:
    result = cascade_rt("demo", "-o", tmp_path, "--bundle", exported, "--shape", 16, 96, 96)
    assert result.exit_code == 0, result.output
    assert set(bundles_of_demo(tmp_path)) == {read_bundle(exported).sha256}


def test_the_volumes_of_the_report_are_those_of_the_mask(exported: Path, scan: Path, tmp_path: Path) -> None:
    cascade_rt("infer", scan, "--bundle", exported, "-o", tmp_path)
    mask = nib.load(tmp_path / "scan_seg.nii.gz")
    voxel_ml = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
    volumes = json.loads((tmp_path / "scan_seg.json").read_text())["volumes_ml"]
    labels = np.asarray(mask.dataobj)
    expected = {"organ": labels > 0, "pancreas": labels == 1, "tumor": labels == 2}
    assert volumes == pytest.approx({name: found.sum() * voxel_ml for name, found in expected.items()}, rel=1e-5)
