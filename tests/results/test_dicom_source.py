"""A scan that DICOM results cannot refer to is refused with a sentence, and a tilted one is told."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from cascade_rt.errors import BackendUnavailableError, InputError
from cascade_rt.results.dicom import write_report, write_rtstruct, write_segmentation
from cascade_rt.results.dicom.source import check_source, doubts_of_tilt
from cascade_rt.scans.dicom_headers import DicomHeaders
from cascade_rt.scans.volume import Volume, mask_on_source_grid
from tests.dicom_results import complaints, lopsided_mask, read_by_dcmqi, read_scan, segmented, write_scan

WRITERS = [write_segmentation, write_report, write_rtstruct]
TILT_MM = 0.6
"""How far each slice lies behind the one below it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan"))


@pytest.fixture
def scan(folder: Path) -> Volume:
    return read_scan(folder)


def headers(volume: Volume) -> list[pydicom.Dataset]:
    assert volume.dicom is not None
    return list(volume.dicom.datasets)


def refusal(volume: Volume) -> tuple[str, str]:
    with pytest.raises(InputError) as refused:
        check_source(volume)
    return refused.value.code, str(refused.value)


@pytest.mark.parametrize("write", WRITERS)
def test_a_scan_that_is_no_dicom_is_refused(scan: Volume, write: Callable[..., None], tmp_path: Path) -> None:
    segmentation = segmented(replace(scan, dicom=None), lopsided_mask(scan.voxels.shape))
    with pytest.raises(InputError, match=r"^scan: was not read from DICOM.*; leave DICOM results out"):
        write(segmentation, tmp_path / "out.dcm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"]
)
@pytest.mark.parametrize("damage", ["absent", "empty", "no uid"])
def test_headers_without_uids_are_refused_by_the_name_of_the_uid(scan: Volume, keyword: str, damage: str) -> None:
    if damage == "absent":
        delattr(headers(scan)[2], keyword)
    elif damage == "empty":
        setattr(headers(scan)[2], keyword, "")
    else:
        with pytest.warns(UserWarning, match="Invalid value"):
            setattr(headers(scan)[2], keyword, "1..2")
    code, sentence = refusal(scan)
    assert code == "E_DICOM_UIDS"
    assert f"1 of 8 headers have {'no valid' if damage == 'no uid' else 'no'} {keyword}" in sentence


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_images_that_do_not_belong_together_are_refused(scan: Volume, keyword: str) -> None:
    setattr(headers(scan)[2], keyword, "1.2.3.4")
    assert refusal(scan)[0] == "E_DICOM_UIDS"
    assert f"2 different {keyword}s" in refusal(scan)[1]


def test_images_that_cannot_be_told_apart_are_refused(scan: Volume) -> None:
    headers(scan)[2].SOPInstanceUID = headers(scan)[3].SOPInstanceUID
    assert "several images have the same SOPInstanceUID" in refusal(scan)[1]


def test_images_that_are_no_ct_are_refused(scan: Volume) -> None:
    for header in headers(scan):
        header.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    assert refusal(scan)[0] == "E_DICOM_CLASS"


def test_a_patient_who_cannot_be_read_is_refused_and_not_quoted(scan: Volume) -> None:
    first = headers(scan)[0]
    raw = pydicom.dataelem.RawDataElement(pydicom.tag.Tag("StudyDate"), "DOE", 3, b"DOE", 0, False, True)
    first._dict[raw.tag] = raw
    with pytest.raises(InputError) as refused:
        check_source(scan)
    assert refused.value.code == "E_DICOM_HEADER"
    assert "DOE" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("package", ["pydicom", "highdicom"])
def test_without_a_package_the_message_says_what_to_install(
    scan: Volume, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailableError, match=rf"\({package}\); run: pip install 'pydicom.*highdicom"):
        write_segmentation(segmented(scan, lopsided_mask(scan.voxels.shape)), tmp_path / "seg.dcm")


def test_headers_with_the_least_that_places_a_slice_are_enough(scan: Volume, tmp_path: Path) -> None:
    """De-identified headers lack what the standard asks for."""
    for header in headers(scan):
        for keyword in ("PatientName", "PatientSex", "StudyID", "StudyTime", "SliceThickness", "SpecificCharacterSet"):
            delattr(header, keyword)
    segmentation = segmented(scan, lopsided_mask(scan.voxels.shape))
    for write in WRITERS:
        write(segmentation, tmp_path / f"{write.__name__}.dcm")
        assert complaints(tmp_path / f"{write.__name__}.dcm") == set()


def test_the_headers_of_the_scan_are_not_changed(scan: Volume, tmp_path: Path) -> None:
    before = [header.to_json() for header in headers(scan)]
    for write in WRITERS:
        write(segmented(scan, lopsided_mask(scan.voxels.shape)), tmp_path / f"{write.__name__}.dcm")
    assert [header.to_json() for header in headers(scan)] == before


def tilted(volume: Volume) -> Volume:
    """The scan as with a tilted gantry: each slice lies a bit behind the one below it."""
    affine = volume.grid.affine.copy()
    affine[1, 2] -= TILT_MM
    datasets = headers(volume)
    for index, header in enumerate(datasets):
        x, y, z = header.ImagePositionPatient
        header.ImagePositionPatient = [x, y + index * TILT_MM, z]
    sheared = Volume.from_array(volume.grid.from_canonical(volume.voxels), affine, name="scan")
    return replace(sheared, dicom=DicomHeaders(tuple(datasets)))


def test_a_tilted_scan_is_told(scan: Volume) -> None:
    assert doubts_of_tilt(scan) == ()
    assert [doubt.code for doubt in doubts_of_tilt(tilted(scan))] == ["W_DICOM_TILT"]


def test_frames_of_a_tilted_scan_are_where_their_slices_are(scan: Volume, tmp_path: Path) -> None:
    volume, mask = tilted(scan), lopsided_mask(scan.voxels.shape)
    write_segmentation(segmented(volume, mask), tmp_path / "seg.dcm")
    assert complaints(tmp_path / "seg.dcm") == set()
    read = hd.seg.segread(tmp_path / "seg.dcm")
    uids = [header.SOPInstanceUID for header in headers(volume)]
    pixels = read.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, mask_on_source_grid(mask, volume).T)
    places = {str(header.SOPInstanceUID): list(header.ImagePositionPatient) for header in headers(volume)}
    for frame in read.PerFrameFunctionalGroupsSequence:
        source: Any = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == places[source.ReferencedSOPInstanceUID]


def test_readers_that_ignore_the_tilt_keep_every_voxel(scan: Volume, tmp_path: Path) -> None:
    """Without the distance of the slices, dcmqi would make fewer of them, as thick as their thickness says."""
    volume, mask = tilted(scan), lopsided_mask(scan.voxels.shape)
    write_segmentation(segmented(volume, mask), tmp_path / "seg.dcm")
    read = np.asarray(read_by_dcmqi(tmp_path / "seg.dcm").dataobj)
    np.testing.assert_array_equal(np.bincount(read[read > 0]), np.bincount(mask[mask > 0]))
