"""`cascade-rt benchmark`: a table, lines and a picture, and how it refuses."""

import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console
from rich.table import Table

from cascade_rt.bundles.bundle import default_bundle_path, read_bundle
from cascade_rt_cli.benchmark import _print_whole
from cascade_rt_cli.main import main
from tests.volume_files import noisy_tissue

ARMS = ("onnxruntime", "pytorch:fp32")


def benchmark(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["benchmark", *map(str, arguments)], catch_exceptions=False)


def write_scan(path: Path) -> Path:
    voxels = noisy_tissue(64, 64, 3)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.8, -0.8, 2.5, 1.0])), path)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """Two arms in two rounds on a tiny scan, measured once."""
    folder = tmp_path_factory.mktemp("measured")
    scan = write_scan(folder / "scan.nii.gz")
    outputs = ("-o", folder / "results.jsonl", "--chart", folder / "steps.png")
    options = ("--backends", ",".join(ARMS), "--rounds", 2, "--warm-up", 0)
    return benchmark(scan, *options, *outputs), folder


def lines(folder: Path, kind: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def test_it_ends_well(measured: tuple[Result, Path]) -> None:
    assert measured[0].exit_code == 0


def test_times_and_masks_stand_in_one_table_of_80_columns(measured: tuple[Result, Path]) -> None:
    table = measured[0].stdout.partition("\n\n")[0].splitlines()
    assert table[0].split() == [
        "arm",
        "p50",
        "s",
        "p90",
        "s",
        "p99",
        "s",
        "slices/s",
        "MiB",
        "pancreas",
        "tumor",
        "voxels",
    ]
    assert [row.split()[0] for row in table[1:]] == list(ARMS)
    assert max(map(len, table)) <= 80


def test_a_long_name_cuts_no_figure_short() -> None:
    table = Table("arm", "seconds")
    table.add_row("a name of an arm " * 8, "12.34")
    with Console(width=80, soft_wrap=True, record=True, file=io.StringIO()) as console:
        _print_whole(console, table)
    assert "12.34" in console.export_text()


def test_percentiles_that_two_runs_do_not_give_are_not_made_up(measured: tuple[Result, Path]) -> None:
    first_row = measured[0].stdout.splitlines()[1].split()
    assert first_row[2:4] == ["-", "-"]
    assert "too few for some percentiles (p90 needs 10, p99 needs 100)" in measured[0].stdout


def test_the_masks_are_compared_with_those_of_pytorch(measured: tuple[Result, Path]) -> None:
    assert "compared with pytorch:fp32" in measured[0].stdout
    assert all(line["masks"]["reference"] == "pytorch:fp32" for line in lines(measured[1], "arm"))


def test_every_run_is_a_line_with_its_steps(measured: tuple[Result, Path]) -> None:
    runs = lines(measured[1], "run")
    assert sorted((run["arm"], run["round"]) for run in runs) == sorted((arm, turn) for arm in ARMS for turn in (0, 1))
    assert {"load", "stage1", "save"} <= runs[0]["steps_s"].keys()


def test_every_line_has_machine_versions_and_bundle(measured: tuple[Result, Path]) -> None:
    for line in (*lines(measured[1], "arm"), *lines(measured[1], "run")):
        assert line["bundle"]["sha256"] == read_bundle(default_bundle_path()).sha256
        assert "Python" in line["machine"]["versions"]


def test_cold_start_and_memory_are_reported_apart_from_the_runs(measured: tuple[Result, Path]) -> None:
    for line in lines(measured[1], "arm"):
        assert min(line["open_s"], line["first_scan_s"], line["peak_memory_bytes"]) > 0


def test_the_picture_is_drawn(measured: tuple[Result, Path]) -> None:
    with Image.open(measured[1] / "steps.png") as picture:
        assert picture.format == "PNG"


def test_nothing_is_left_beside_the_scan(measured: tuple[Result, Path]) -> None:
    assert sorted(path.name for path in measured[1].iterdir()) == ["results.jsonl", "scan.nii.gz", "steps.png"]


def test_an_arm_that_is_not_known_is_refused_with_the_choices() -> None:
    result = benchmark("scan.nii.gz", "--backends", "caffe")
    assert (result.exit_code, "unknown backend 'caffe'; choose from" in result.stderr) == (2, True)


@pytest.mark.usefixtures("no_gpu")
def test_an_arm_that_was_named_and_cannot_run_is_an_error(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    result = benchmark(scan, "--backends", "onnxruntime-cuda")
    assert (result.exit_code, "onnxruntime-cuda" in result.stderr) == (7, True)


def test_a_result_never_overwrites_a_scan(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    result = benchmark(scan, "-o", scan)
    assert (result.exit_code, "is an input and would be overwritten" in result.stderr) == (2, True)


def test_existing_lines_are_kept_by_default(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("mine")
    result = benchmark(write_scan(tmp_path / "scan.nii.gz"), "-o", tmp_path / "results.jsonl")
    assert (result.exit_code, (tmp_path / "results.jsonl").read_text()) == (8, "mine")


def test_a_missing_scan_is_reported_before_the_work(tmp_path: Path) -> None:
    assert benchmark(tmp_path / "none.nii.gz").exit_code == 4


def test_scans_are_read_with_the_options_of_infer(tmp_path: Path) -> None:
    voxels = np.stack([np.clip(noisy_tissue(64, 64, 3), 0, 255)] * 2, axis=-1)
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.8, -0.8, 2.5, 1.0])), scan)
    options = (scan, "--backends", "onnxruntime", "--rounds", 1, "--warm-up", 0, "--volume", 1)
    refused = benchmark(*options)
    assert refused.exit_code == 4
    assert "override with --assume-hu" in refused.stderr
    assert benchmark(*options, "--assume-hu").exit_code == 0
