"""Every report is what the published schema says, and the schema says all that is in one."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator, ValidationError

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.hashing import file_sha256
from cascade_rt.results.segmentation import REPORT_VERSION, report_schema_path
from cascade_rt.scans.volume import Volume
from cascade_rt_cli.main import main
from tests.cohort_files import AFFINE, HU, block, fake_cascade, trained_on
from tests.volume_files import noisy_tissue

SCHEMA = json.loads(report_schema_path().read_text())
Report = dict[str, Any]


def validate(report: Report) -> None:
    Draft202012Validator(SCHEMA).validate(report)


def inferred(*arguments: object) -> None:
    done = CliRunner().invoke(main, ["infer", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr


def read_report(path: Path) -> Report:
    report: Report = json.loads(path.read_text())
    return report


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    voxels = noisy_tissue(64, 72, 3)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.8, -0.8, 2.5, 1.0])), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def test_the_schema_is_one_and_is_of_the_version_that_is_written() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["report_version"]["const"] == REPORT_VERSION


@pytest.mark.parametrize("options", [(), ("--precision", "fp16"), ("--backend", "pytorch"), ("--preview",)])
def test_reports_of_the_command_line_fit(bundle: Bundle, scan: Path, options: tuple[str, ...]) -> None:
    inferred(scan, "--bundle", bundle.path, "--backend", "onnxruntime", "-o", scan.parent, *options)
    validate(read_report(scan.with_name("scan_seg.json")))


def test_a_report_with_an_assumed_orientation_fits_the_schema_and_warns(bundle: Bundle, scan: Path) -> None:
    image = nib.load(scan)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, scan)
    inferred(scan, "--bundle", bundle.path, "-o", scan.parent, "--assume-orientation", "LPS")
    report = read_report(scan.with_name("scan_seg.json"))
    validate(report)
    assert "W_ORIENT" in {warning["code"] for warning in report["warnings"]}


@pytest.mark.parametrize(
    ("stage1", "target", "labels"),
    [
        ("multiscale_unet", "tumor", block()),
        ("multiscale_unet", "tumor", block((1, 4, 4))),
        ("multiscale_unet", "tumor", block((1, 4, 4), (2, 4, 4), label=2)),
        ("multiscale_unet", "organ", block((1, 4, 4))),
        ("none", "tumor", block((1, 4, 4), label=2)),
        ("none", "tumor", block()),
    ],
)
def test_reports_of_every_kind_of_cascade_fit(stage1: Any, target: Any, labels: Any) -> None:
    volume = Volume.from_array(HU[labels].T, AFFINE)
    report = json.loads(json.dumps(fake_cascade(stage1=stage1, target=target).run(volume).to_json(), allow_nan=False))
    validate(report)


def test_the_report_of_a_resampled_scan_fits() -> None:
    cascade = trained_on(fake_cascade(), (1.0, 1.2))
    report = json.loads(json.dumps(cascade.run(Volume.from_array(HU[block()].T, AFFINE)).to_json(), allow_nan=False))
    assert report["geometry"]["working_grid"] is not None
    validate(report)


def test_the_hashes_are_those_of_the_files(bundle: Bundle, scan: Path) -> None:
    inferred(scan, "--bundle", bundle.path, "--backend", "onnxruntime", "-o", scan.parent)
    report = read_report(scan.with_name("scan_seg.json"))
    mask = scan.with_name("scan_seg.nii.gz")
    assert report["input"] == {"sha256": file_sha256(scan), "bytes": scan.stat().st_size}
    assert report["output"] == {"sha256": file_sha256(mask), "bytes": mask.stat().st_size}
    assert report["provenance"]["bundle"]["sha256"] == file_sha256(bundle.path / "manifest.json")
    assert report["provenance"]["graphs"] == {
        stage: file_sha256(bundle.path / f"{stage}_fp32.onnx") for stage in ("stage1", "stage2")
    }


@pytest.mark.parametrize(
    "change",
    [
        {"host": "workstation-7"},
        {"report_version": 2},
        {"islands": {"setting": "largest"}},
        {"status": "fine"},
        {"warnings": ["plain text"]},
        {"input": {"sha256": "0" * 63, "bytes": 1}},
        {"volumes_ml": {"organ": -1.0, "pancreas": 0.0, "tumor": 0.0}},
    ],
)
def test_anything_else_does_not_fit(change: Report) -> None:
    report = fake_cascade().run(Volume.from_array(HU[block()].T, AFFINE)).to_json()
    validate(report)
    with pytest.raises(ValidationError):
        validate(report | change)


@pytest.mark.parametrize("key", sorted(SCHEMA["properties"]))
def test_no_part_of_a_report_may_be_missing(key: str) -> None:
    report = fake_cascade().run(Volume.from_array(HU[block()].T, AFFINE)).to_json()
    del report[key]
    with pytest.raises(ValidationError, match="is a required property"):
        validate(report)


def test_the_schema_is_printed_on_request() -> None:
    printed = CliRunner().invoke(main, ["inspect", "--report-schema"]).stdout
    assert json.loads(printed) == SCHEMA
