"""DICOM results of a run: beside the mask, refused before anything is computed, and the only ones with a patient."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pydicom
import pytest

from cascade_rt.errors import InputError, InputWarning, UsageError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.case import Case
from cascade_rt.run.extra_results import ExtraResult
from cascade_rt.run.inference import RunOptions, infer_file
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.volume import Volume
from tests.cohort_files import HU, fake_cascade, save_labels
from tests.dicom_results import PATIENT, read_scan, write_scan

LABELS = np.zeros((8, 64, 64), dtype=np.uint8)
LABELS[2:6, 20:40, 20:40] = 1
LABELS[3:5, 25:30, 25:30] = 2
DICOM: tuple[ExtraResult, ...] = ("dicom-seg", "dicom-sr", "rtstruct")
SAYS_WHO = ("Yamada", "Tarou", "MRN12345", "19551224", "A17", "Ward7")


class ReadScan:
    """A reader of a scan that is in memory."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def batches(self, size: int) -> Iterator[slice]:
        yield slice(0, len(self.volume.voxels))

    def finish(self) -> Volume:
        return self.volume

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadScan:
    """A DICOM scan that is opened whatever the path."""
    reader = ReadScan(read_scan(write_scan(tmp_path / "series", HU[LABELS])))

    def open_scan(path: Path, options: ScanOptions) -> ReadScan:
        return reader

    monkeypatch.setattr("cascade_rt.run.inference.open_scan", open_scan)
    return reader


def case(folder: Path, *extras: ExtraResult) -> Case:
    return Case.in_folder(folder / "series", folder / "out", "scan", extras=extras)


def infer(folder: Path, *extras: ExtraResult, overwrite: bool = False) -> Segmentation:
    return infer_file(fake_cascade(), case(folder, *extras), RunOptions(overwrite=overwrite))


@pytest.mark.usefixtures("scan")
def test_dicom_results_lie_beside_the_mask(tmp_path: Path) -> None:
    infer(tmp_path, *DICOM)
    names = ["scan_seg.dcm", "scan_seg.json", "scan_seg.nii.gz", "scan_seg_rtstruct.dcm", "scan_seg_sr.dcm"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    found = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").glob("*.dcm"))]
    assert [dataset.Modality for dataset in found] == ["SEG", "RTSTRUCT", "SR"]
    assert {dataset.StudyInstanceUID for dataset in found} == {PATIENT["StudyInstanceUID"]}
    assert len({dataset.SeriesInstanceUID for dataset in found}) == 3


@pytest.mark.usefixtures("scan")
def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    infer(tmp_path, *DICOM)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.dcm")}
    infer(tmp_path, *DICOM, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.dcm")} == first


@pytest.mark.usefixtures("scan")
def test_only_dicom_results_say_who_the_patient_is(tmp_path: Path) -> None:
    """An archive files an object by its patient and study, so these have both; see docs/promises.md."""
    infer(tmp_path, *DICOM, "picture")
    for path in (tmp_path / "out").iterdir():
        said = [word for word in SAYS_WHO if word.encode() in path.read_bytes()]
        assert said == (list(SAYS_WHO) if path.suffix == ".dcm" else [])


@pytest.mark.parametrize("extra", ["dicom-seg", "dicom-seg-labelmap", "rtstruct"])
def test_a_scan_that_is_no_dicom_is_refused_before_it_is_computed(tmp_path: Path, extra: ExtraResult) -> None:
    nifti = save_labels(tmp_path / "scan.nii.gz", HU[LABELS])
    finished: list[int] = []
    with pytest.raises(InputError) as refused:
        infer_file(
            fake_cascade(), Case.in_folder(nifti, tmp_path / "out", "scan", extras=[extra]), on_slices=finished.append
        )
    assert refused.value.code == "E_NOT_DICOM"
    assert finished == []


def test_a_series_without_uids_is_refused_before_it_is_computed_and_closed(scan: ReadScan, tmp_path: Path) -> None:
    assert scan.volume.dicom is not None
    for header in scan.volume.dicom.datasets:
        header.StudyInstanceUID = ""
    with pytest.raises(InputError) as refused:
        infer(tmp_path, "dicom-seg")
    assert refused.value.code == "E_DICOM_UIDS"
    assert not (tmp_path / "out").exists()
    assert scan.is_closed


def test_the_report_of_a_tilted_scan_tells_that_viewers_ignore_the_tilt(scan: ReadScan, tmp_path: Path) -> None:
    scan.volume = replace(scan.volume, warnings=(InputWarning("W_SHEAR", "the axes are not perpendicular"),))
    infer(tmp_path, "dicom-seg")
    report = json.loads((tmp_path / "out" / "scan_seg.json").read_text())
    assert [warning["code"] for warning in report["warnings"]][-1] == "W_DICOM_TILT"


def test_a_dicom_report_without_what_it_refers_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`dicom-sr`: refers to another result .*; add `dicom-seg`"):
        case(tmp_path, "dicom-sr")


def test_two_results_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would have the same name as `dicom-seg`"):
        case(tmp_path, "dicom-seg", "dicom-seg-labelmap")
