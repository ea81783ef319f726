"""`cascade-rt infer`: where results go, and how it refuses."""

import gzip
import json
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.engines import GPU_BACKENDS
from cascade_rt.errors import OutputError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt_cli.main import main
from tests.volume_files import noisy_tissue


def infer(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments)], catch_exceptions=False)


def write_scan(path: Path, shape: tuple[int, ...] = (64, 64, 3)) -> Path:
    image = nib.Nifti1Image(noisy_tissue(*shape), np.diag([-0.8, -0.8, 2.5, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def test_results_go_to_the_current_folder_by_default(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    assert infer(write_scan(tmp_path / "elsewhere" / "scan.nii.gz"), "--bundle", bundle.path).exit_code == 0
    assert (tmp_path / "scan_seg.nii.gz").is_file()
    assert (tmp_path / "scan_seg.json").is_file()


def test_a_file_named_with_o_is_the_mask(bundle: Bundle, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    assert infer(scan, "--bundle", bundle.path, "-o", tmp_path / "deep" / "mask.nii").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["mask.json", "mask.nii"]


def test_a_picture_is_drawn_if_requested(bundle: Bundle, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    assert infer(scan, "--bundle", bundle.path, "-o", tmp_path, "--preview").exit_code == 0
    with Image.open(tmp_path / "scan_seg.png") as picture:
        assert picture.format == "PNG"


def test_several_scans_go_to_a_folder(bundle: Bundle, tmp_path: Path) -> None:
    scans = [write_scan(tmp_path / name) for name in ("a.nii.gz", "b.nii")]
    assert infer(*scans, "--bundle", bundle.path, "-o", tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


def test_several_scans_into_one_file_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    result = infer("a.nii.gz", "b.nii.gz", "--bundle", bundle.path, "-o", tmp_path / "mask.nii.gz")
    assert (result.exit_code, "mask.nii.gz: is one file for several scans; choose a folder" in result.stderr) == (
        2,
        True,
    )


def test_two_scans_of_one_name_are_refused_before_any_work(bundle: Bundle, tmp_path: Path) -> None:
    result = infer("x/scan.nii.gz", "y/scan.nii.gz", "--bundle", bundle.path, "-o", tmp_path)
    assert (result.exit_code, "would both become scan_seg.nii.gz" in result.stderr) == (2, True)


def test_a_result_never_overwrites_another_scan(bundle: Bundle, tmp_path: Path) -> None:
    scans = [write_scan(tmp_path / name) for name in ("a.nii.gz", "a_seg.nii.gz")]
    before = scans[1].read_bytes()
    result = infer(*scans, "--bundle", bundle.path, "-o", tmp_path, "--overwrite")
    assert (result.exit_code, "is an input and would be overwritten" in result.stderr) == (2, True)
    assert scans[1].read_bytes() == before


def test_a_mask_of_another_format_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    result = infer("scan.nii.gz", "--bundle", bundle.path, "-o", tmp_path / "mask.mhd")
    assert (result.exit_code, "masks are written as .nii.gz, .nii, .seg.nrrd, .nrrd or .mha" in result.stderr) == (
        2,
        True,
    )


def test_a_report_that_cannot_be_written_takes_the_mask_with_it(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(Segmentation, "save_report", refuse)
    result = infer(write_scan(tmp_path / "scan.nii.gz"), "--bundle", bundle.path, "-o", tmp_path / "out")
    assert (result.exit_code, list((tmp_path / "out").iterdir())) == (6, [])


def test_a_folder_in_the_place_of_a_result_is_found_before_the_work(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "scan_seg.json").mkdir()
    result = infer(write_scan(tmp_path / "scan.nii.gz"), "--bundle", bundle.path, "-o", tmp_path, "--overwrite")
    assert (result.exit_code, (tmp_path / "scan_seg.nii.gz").exists()) == (6, False)


def test_a_scan_with_an_undecodable_name_is_segmented(bundle: Bundle, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz").rename(tmp_path / os.fsdecode(b"caf\xe9.nii.gz"))
    assert infer(scan, "--bundle", bundle.path, "-o", tmp_path).exit_code == 0
    assert len(list(tmp_path.glob("*_seg.json"))) == 1


def test_existing_results_are_kept_by_default(bundle: Bundle, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    (tmp_path / "scan_seg.nii.gz").write_text("mine")
    result = infer(scan, "--bundle", bundle.path, "-o", tmp_path)
    assert (result.exit_code, (tmp_path / "scan_seg.nii.gz").read_text()) == (8, "mine")
    assert infer(scan, "--bundle", bundle.path, "-o", tmp_path, "--overwrite").exit_code == 0
    assert nib.load(tmp_path / "scan_seg.nii.gz").shape == (64, 64, 3)


def test_one_bad_scan_of_several_does_not_stop_the_others(bundle: Bundle, tmp_path: Path) -> None:
    scans = [tmp_path / "missing.nii.gz", write_scan(tmp_path / "good.nii.gz")]
    result = infer(*scans, "--bundle", bundle.path, "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "1 of 2 scans failed" in result.stderr
    assert "missing.nii.gz" in result.stderr
    assert (tmp_path / "out" / "good_seg.nii.gz").is_file()


def test_a_name_that_looks_like_markup_is_printed_as_it_is(bundle: Bundle, tmp_path: Path) -> None:
    result = infer(write_scan(tmp_path / "[bold]scan.nii.gz"), "--bundle", bundle.path, "-o", tmp_path)
    assert "[bold]scan.nii.gz" in result.stdout


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_a_backend_for_gpus_without_a_driver_is_refused_in_one_sentence(
    bundle: Bundle, tmp_path: Path, backend: str
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    result = infer(scan, "--bundle", bundle.path, "-o", tmp_path / "out", "--backend", backend)
    assert (result.exit_code, result.stdout) == (7, "")
    assert result.stderr.strip().splitlines() == [
        f"cascade-rt: error[E_BACKEND]: backend '{backend}' needs an NVIDIA GPU, but this machine has no NVIDIA driver "
        "(no no_such_driver.so); choose another --backend, or auto"
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_gpu")
def test_why_no_gpu_computed_is_one_line_on_the_console_and_no_warning(bundle: Bundle, tmp_path: Path) -> None:
    result = infer(write_scan(tmp_path / "scan.nii.gz"), "--bundle", bundle.path, "-o", tmp_path)
    report = json.loads((tmp_path / "scan_seg.json").read_text())
    (reason,) = report["provenance"]["engines_passed_over"]
    assert reason.startswith("tensorrt and onnxruntime-cuda need an NVIDIA GPU: this machine has no NVIDIA driver")
    assert result.stdout.count(reason) == 1
    assert report["warnings"] == []


def test_console_and_report_say_which_engine_computed(bundle: Bundle, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    result = infer(scan, "--bundle", bundle.path, "-o", tmp_path, "--backend", "pytorch")
    engine = json.loads((tmp_path / "scan_seg.json").read_text())["provenance"]["engine"]
    assert (engine["backend"], engine["precision"]) == ("pytorch", "fp32")
    assert f"pytorch {engine['version']} on {engine['device']}, fp32" in result.stdout


def test_the_report_times_every_step(bundle: Bundle, tmp_path: Path) -> None:
    infer(write_scan(tmp_path / "scan.nii.gz"), "--bundle", bundle.path, "-o", tmp_path)
    timings = json.loads((tmp_path / "scan_seg.json").read_text())["timings_s"]
    assert timings.keys() == {"load", "preprocess", "stage1", "crop", "stage2", "paste", "measure", "save"}


def test_a_damaged_bundle_is_refused_with_exit_code_5(bundle: Bundle, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    (damaged / "stage1_fp32.onnx").write_bytes(b"")
    result = infer(write_scan(tmp_path / "scan.nii.gz"), "--bundle", damaged, "-o", tmp_path / "out")
    assert (result.exit_code, (tmp_path / "out").exists()) == (5, False)


def bad_scan(kind: str, folder: Path) -> Path:
    """A file, or none, that cannot be segmented."""
    path = folder / f"{kind}.nii.gz"
    if kind == "missing":
        return path
    if kind == "directory":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("<html>Please log in</html>" * 50)
    elif kind == "zipped_text":
        path.write_bytes(gzip.compress(b"<html>Please log in</html>" * 50))
    elif kind == "truncated":
        write_scan(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        write_scan(path, {"two_dimensions": (64, 64), "four_dimensions": (64, 64, 3, 2)}[kind])
    return path


@pytest.mark.parametrize(
    "kind",
    ["missing", "directory", "empty", "text", "zipped_text", "truncated", "two_dimensions", "four_dimensions"],
)
def test_a_bad_scan_is_refused_in_one_sentence_and_leaves_nothing(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    scan = bad_scan(kind, tmp_path)
    result = infer(scan, "--bundle", bundle.path, "-o", tmp_path / "out")
    assert result.exit_code == 4
    assert result.stdout == ""
    sentence = result.stderr.strip()
    assert re.match(rf"cascade-rt: error\[E_[A-Z_]+\]: {re.escape(scan.name)}: ", sentence)
    assert "\n" not in sentence
    assert ";" in sentence, "the remedy stands behind a semicolon"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("nih_pancreas_ct/case1.nii.gz", (512, 512, 5)),
        ("totalsegmentator/example_ct_sm.nii.gz", (122, 101, 30)),
        ("evalseg/CT_370.nii.gz", (512, 512, 1)),
    ],
)
def test_a_real_scan_gets_a_mask_on_its_own_grid(
    sample_ct: Path, tmp_path: Path, name: str, shape: tuple[int, int, int]
) -> None:
    scan = sample_ct / name
    result = infer(scan, "-o", tmp_path / "mask.nii.gz")
    assert result.exit_code == 0, result.output
    image, mask = nib.load(scan), nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == image.shape == shape
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("option", "value"),
    [("--timeout", "inf"), ("--timeout", "nan"), ("--timeout", "1e999"), ("--hu-offset", "9" * 400)],
)
def test_a_number_that_cannot_be_counted_to_is_refused(tmp_path: Path, option: str, value: str) -> None:
    result = infer(tmp_path / "scan.nii.gz", "--workers", 1, option, value, "-o", tmp_path / "out")
    assert (result.exit_code, f"Invalid value for '{option}'" in result.stderr) == (2, True)
