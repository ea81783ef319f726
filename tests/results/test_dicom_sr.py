"""A DICOM SR says what the report says, of the segments of the SEG, as dcmqi reads it."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from cascade_rt.results.dicom import write_report, write_segmentation
from cascade_rt.results.dicom.sr import MOST_LESIONS
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.scans.volume import Volume
from tests.dicom_results import (
    BUNDLE,
    PATIENT,
    complaints,
    lopsided_mask,
    program,
    read_scan,
    real_slices,
    segmented,
    write_scan,
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return read_scan(write_scan(tmp_path_factory.mktemp("scan")))


@pytest.fixture(scope="module")
def found(scan: Volume) -> Segmentation:
    return segmented(scan, lopsided_mask(scan.voxels.shape))


def as_dcmqi_reads(segmentation: Segmentation, folder: Path) -> dict[str, Any]:
    write_report(segmentation, folder / "sr.dcm")
    command = [program("tid1500reader"), "--inputDICOM", folder / "sr.dcm", "--outputMetadata", folder / "sr.json"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    read: dict[str, Any] = json.loads((folder / "sr.json").read_text())
    return read


def values(group: dict[str, Any]) -> dict[str, tuple[float, str]]:
    return {
        item["quantity"]["CodeValue"]: (float(item["value"]), item["units"]["CodeValue"])
        for item in group["measurementItems"]
    }


def texts(path: Path) -> list[str]:
    items = pydicom.dcmread(path).ContentSequence
    return [item.TextValue for item in items if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"]


def test_it_is_valid(found: Segmentation, tmp_path: Path) -> None:
    write_report(found, tmp_path / "sr.dcm")
    assert complaints(tmp_path / "sr.dcm") == set()


def test_it_is_valid_for_real_slices(sample_ct: Path, tmp_path: Path) -> None:
    volume = read_scan(real_slices(sample_ct, tmp_path / "real"))
    write_report(segmented(volume, lopsided_mask(volume.voxels.shape)), tmp_path / "sr.dcm")
    assert complaints(tmp_path / "sr.dcm") == set()


def test_the_volumes_and_the_number_of_lesions_are_those_of_the_report(found: Segmentation, tmp_path: Path) -> None:
    pancreas, tumor, *_ = as_dcmqi_reads(found, tmp_path)["Measurements"]
    report = found.to_json()
    volume, number = "118565006", "246206008"
    assert values(pancreas) == {volume: (pytest.approx(report["volumes_ml"]["pancreas"], abs=1e-4), "ml")}
    assert values(tumor)[volume] == (pytest.approx(report["volumes_ml"]["tumor"], abs=1e-4), "ml")
    assert values(tumor)[number] == (len(report["lesions"]), "1")


def test_each_lesion_has_its_volume_and_the_diameter_of_an_equal_sphere(found: Segmentation, tmp_path: Path) -> None:
    lesions = as_dcmqi_reads(found, tmp_path)["Measurements"][2:]
    assert [group["TrackingIdentifier"] for group in lesions] == ["Lesion 1", "Lesion 2"]
    for group, lesion in zip(lesions, found.measurements.lesions, strict=True):
        assert values(group)["118565006"][0] == pytest.approx(lesion.volume_ml, abs=1e-4)
        assert values(group)["SPHERE_DIAMETER"] == (pytest.approx(lesion.diameter_mm, abs=1e-4), "mm")


def test_groups_refer_to_the_segments_of_the_seg(found: Segmentation, tmp_path: Path) -> None:
    write_segmentation(found, tmp_path / "seg.dcm")
    seg, groups = pydicom.dcmread(tmp_path / "seg.dcm"), as_dcmqi_reads(found, tmp_path)["Measurements"]
    for group, segment in zip(groups[:2], seg.SegmentSequence, strict=True):
        assert group["segmentationSOPInstanceUID"] == seg.SOPInstanceUID
        assert group["ReferencedSegment"] == segment.SegmentNumber
        assert group["TrackingUniqueIdentifier"] == segment.TrackingUID
        assert group["TrackingIdentifier"] == segment.TrackingID
        assert group["Finding"]["CodeValue"] == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue


def test_nobody_has_verified_it(found: Segmentation, tmp_path: Path) -> None:
    assert as_dcmqi_reads(found, tmp_path)["VerificationFlag"] == "UNVERIFIED"


def test_the_intended_use_is_told(found: Segmentation, tmp_path: Path) -> None:
    write_report(found, tmp_path / "sr.dcm")
    assert f"Intended use: {BUNDLE['intended_use']}" in texts(tmp_path / "sr.dcm")


def test_what_the_character_set_of_the_patient_lacks_is_replaced(found: Segmentation, tmp_path: Path) -> None:
    bundle = BUNDLE | {"name": "läsion\\一", "intended_use": "Für die Forschung 研究."}
    write_report(replace(found, provenance={"bundle": bundle}), tmp_path / "sr.dcm")
    assert "Intended use: F?r die Forschung ??." in texts(tmp_path / "sr.dcm")
    assert complaints(tmp_path / "sr.dcm") == set()


def test_the_patient_keeps_the_name_in_every_script(found: Segmentation, tmp_path: Path) -> None:
    write_report(found, tmp_path / "sr.dcm")
    assert pydicom.dcmread(tmp_path / "sr.dcm").PatientName == PATIENT["PatientName"]


def test_a_mask_full_of_speckle_lists_the_largest_lesions_and_counts_all(scan: Volume, tmp_path: Path) -> None:
    mask = np.zeros(scan.voxels.shape, dtype=np.uint8)
    mask[::2, 4::4, 4::4] = 2
    speckle = segmented(scan, mask)
    read = as_dcmqi_reads(speckle, tmp_path)["Measurements"]
    assert len(read) == 2 + MOST_LESIONS
    assert values(read[1])["246206008"][0] == len(speckle.measurements.lesions)
    left_out = len(speckle.measurements.lesions) - MOST_LESIONS
    assert f"{left_out} more lesions, none of them larger, are counted but not listed." in texts(tmp_path / "sr.dcm")


def test_an_empty_mask_has_volumes_of_0(scan: Volume, tmp_path: Path) -> None:
    read = as_dcmqi_reads(segmented(scan, np.zeros(scan.voxels.shape, dtype=np.uint8)), tmp_path)["Measurements"]
    assert [values(group)["118565006"][0] for group in read] == [0.0, 0.0]


def test_a_bundle_that_looks_for_no_tumors_says_nothing_of_them(scan: Volume, tmp_path: Path) -> None:
    mask = np.minimum(lopsided_mask(scan.voxels.shape), 1)
    (group,) = as_dcmqi_reads(segmented(scan, mask, target="organ"), tmp_path)["Measurements"]
    assert group["TrackingIdentifier"] == "Pancreas"


def test_the_same_segmentation_gives_the_same_bytes(found: Segmentation, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_report(found, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
