"""A result that is opened again from its files is the one that was written, or it is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.errors import InputError
from cascade_rt.results.reopening import reopen
from cascade_rt.results.report_page.page import render_page
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.case import Case
from cascade_rt.run.inference import infer_file
from tests.broken_scans import ct
from tests.dicom_files import BODY, axial_slices, write_enhanced, write_series, zipped
from tests.volume_files import noisy_tissue


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A scan, and where its results go."""
    image = nib.Nifti1Image(noisy_tissue(64, 64, 4), np.diag([-0.8, -0.8, 2.5, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "scan.nii.gz")
    return Case.in_folder(tmp_path / "scan.nii.gz", tmp_path, "scan", extras=["page"])


@pytest.fixture
def written(bundle: Bundle, case: Case) -> Segmentation:
    """The result as it was written."""
    engines = Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))
    return infer_file(Cascade(bundle, engines), case)


def opened(case: Case) -> Segmentation:
    return reopen(case.report, case.mask, case.scan)


def code_of_refusal(case: Case) -> str:
    with pytest.raises(InputError) as caught:
        opened(case)
    return caught.value.code


def test_it_is_the_one_that_was_written(case: Case, written: Segmentation) -> None:
    found = opened(case)
    assert found.to_json() == written.to_json()
    assert np.array_equal(found.mask, written.mask)


def test_its_page_is_the_one_that_the_run_wrote(case: Case, written: Segmentation) -> None:
    assert render_page(opened(case)) == case.extra_path("page").read_bytes()


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.nhdr", "scan.mha", "scan.mhd", "series", "series.zip"])
def test_results_of_every_format_are_opened_again(bundle: Bundle, tmp_path: Path, name: str) -> None:
    case = Case.in_folder(save_scan(tmp_path / name), tmp_path, "scan")
    engines = Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))
    written = infer_file(Cascade(bundle, engines), case)
    assert opened(case).to_json() == written.to_json()


def save_scan(path: Path) -> Path:
    """Write a scan in the format that its name says; a name without a known suffix is a folder of DICOM files."""
    hu = np.ascontiguousarray(noisy_tissue(64, 64, 4).T) // 2 * 2
    if not path.name.startswith("scan"):
        pytest.importorskip("pydicom", reason="pydicom is not installed")
        series = write_series(path.with_suffix(""), axial_slices(hu))
        return zipped(series, path) if path.suffix else series
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    pytest.importorskip("nrrd", reason="pynrrd is not installed")
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(path))
    return path


def a_zip(folder: Path) -> Path:
    return zipped(write_series(folder / "files", axial_slices(ct(0, (6, 40, 48)), **BODY)), folder / "scan.zip")


def an_enhanced_ct(folder: Path) -> Path:
    return write_enhanced(folder / "scan.dcm", axial_slices(ct(0, (6, 40, 48)), **BODY))


def a_detached_file(folder: Path) -> Path:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    sitk.WriteImage(sitk.GetImageFromArray(ct(0, (6, 40, 48))), folder / "scan.mhd")
    return folder / "scan.mhd"


@pytest.mark.parametrize("write", [a_zip, an_enhanced_ct, a_detached_file])
def test_a_scan_whose_record_is_not_that_of_one_file_is_opened(
    bundle: Bundle, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    case = Case.in_folder(write(tmp_path), tmp_path, "scan")
    written = infer_file(Cascade(bundle, Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))), case)
    assert opened(case).to_json() == written.to_json()


@pytest.mark.parametrize("which", ["scan", "mask"])
def test_another_file_is_refused(case: Case, written: Segmentation, which: str) -> None:
    path: Path = getattr(case, which)
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine, image.header), path)
    assert code_of_refusal(case) == "E_OTHER_FILE"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"report_version": 3}',
        '{"report_version": 3, "status": "ok", "input": {}, "output": {}}',
        "\x00",
    ],
)
def test_what_is_no_report_is_refused(case: Case, written: Segmentation, content: str) -> None:
    case.report.write_text(content)
    assert code_of_refusal(case) == "E_REPORT"


@pytest.mark.parametrize(
    ("key", "value"),
    [("lesions", [{"volume_ml": 1}]), ("geometry", {}), ("warnings", 3), ("status", "fine"), ("report_version", 2)],
)
def test_a_changed_report_is_refused(case: Case, written: Segmentation, key: str, value: object) -> None:
    content = json.loads(case.report.read_text())
    case.report.write_text(json.dumps({**content, key: value}))
    assert code_of_refusal(case) == "E_REPORT"


def test_a_report_of_another_grid_is_refused(case: Case, written: Segmentation) -> None:
    content = json.loads(case.report.read_text())
    content["geometry"]["spacing_mm"][0] = 5.0
    case.report.write_text(json.dumps(content))
    assert code_of_refusal(case) == "E_REPORT"


def test_a_report_of_an_array_is_refused(case: Case, written: Segmentation) -> None:
    content = json.loads(case.report.read_text())
    case.report.write_text(json.dumps({**content, "input": None}))
    assert code_of_refusal(case) == "E_REPORT"


def test_a_report_that_is_not_there_is_an_error_that_names_it(case: Case) -> None:
    assert code_of_refusal(case) == "E_INPUT"
