"""A DICOM SEG has every voxel of the mask in its place, as other software reads it, and the same bytes in every run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from cascade_rt.errors import OutputError
from cascade_rt.results.dicom import write_segmentation
from cascade_rt.results.dicom.seg import SegKind
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.scans.dicom_headers import DicomHeaders
from cascade_rt.scans.volume import Volume, mask_on_source_grid
from tests.dicom_results import (
    PATIENT,
    SERIES,
    Mask,
    complaints,
    lopsided_mask,
    read_by_dcmqi,
    read_scan,
    real_slices,
    segmented,
    write_scan,
)

KINDS: tuple[SegKind, ...] = ("seg", "labelmap")
OF_THE_OLD_VALIDATOR = {
    "Error - Information Object Not found",
    "Error - </SegmentSequence(0062,0002)[1]/SegmentNumber(0062,0004)> - SegmentNumber not monotonically increasing "
    "from one by one - have SegmentSequence item number 1 (from one) with SegmentNumber of 0",
}
"""What dciodvfy of 2022 says of a label map, a class of object from 2024 whose background is segment 0."""


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="module", params=["synthetic", "real"])
def volume(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    if request.param == "synthetic":
        return read_scan(request.getfixturevalue("synthetic"))
    return read_scan(real_slices(request.getfixturevalue("sample_ct"), tmp_path_factory.mktemp("real") / "slices"))


@pytest.fixture(scope="module")
def scan(synthetic: Path) -> Volume:
    return read_scan(synthetic)


def written(segmentation: Segmentation, folder: Path, kind: SegKind = "seg") -> Path:
    folder.mkdir(exist_ok=True)
    write_segmentation(segmentation, folder / "seg.dcm", kind=kind)
    return folder / "seg.dcm"


def as_dcmqi_reads(path: Path, volume: Volume) -> Mask:
    """The mask `[z, row, col]` from the world coordinates of the voxels that dcmqi finds."""
    image = read_by_dcmqi(path)
    found = np.asarray(image.dataobj)
    indices = np.argwhere(found)
    world = nib.affines.apply_affine(image.affine, indices)
    places = nib.affines.apply_affine(np.linalg.inv(volume.affine), world)
    assert np.abs(places - np.rint(places)).max() < 0.01
    mask = np.zeros(volume.voxels.shape, dtype=np.uint8)
    mask[tuple(np.rint(places).astype(int).T)] = found[tuple(indices.T)]
    return mask


def as_highdicom_reads(path: Path, volume: Volume) -> Mask:
    """The mask `[slice, row, col]` by the UIDs of the images that the frames refer to."""
    assert volume.dicom is not None
    uids = [header.SOPInstanceUID for header in volume.dicom.datasets]
    pixels: Mask = hd.seg.segread(path).get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    return pixels


def shifted(mask: Mask) -> Mask:
    return np.roll(mask, 1, axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_valid(volume: Volume, kind: SegKind, tmp_path: Path) -> None:
    found = complaints(written(segmented(volume, lopsided_mask(volume.voxels.shape)), tmp_path, kind))
    assert found - (OF_THE_OLD_VALIDATOR if kind == "labelmap" else set()) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_dcmqi_finds_every_voxel_in_its_place(volume: Volume, kind: SegKind, tmp_path: Path) -> None:
    mask = lopsided_mask(volume.voxels.shape)
    np.testing.assert_array_equal(as_dcmqi_reads(written(segmented(volume, mask), tmp_path, kind), volume), mask)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_refers_to_the_image_of_its_slice(volume: Volume, kind: SegKind, tmp_path: Path) -> None:
    mask = lopsided_mask(volume.voxels.shape)
    read = as_highdicom_reads(written(segmented(volume, mask), tmp_path, kind), volume)
    np.testing.assert_array_equal(read, mask_on_source_grid(mask, volume).T)


@pytest.mark.parametrize(
    "change", [np.flipud, lambda mask: mask[:, ::-1], shifted], ids=["flip z", "flip y", "shift z"]
)
def test_a_mask_in_the_wrong_place_is_noticed_by_both_readers(
    scan: Volume, change: Callable[[Mask], Mask], tmp_path: Path
) -> None:
    """The readers above would be worthless if they could not tell."""
    mask = lopsided_mask(scan.voxels.shape)
    path = written(segmented(scan, np.ascontiguousarray(change(mask))), tmp_path)
    assert (as_dcmqi_reads(path, scan) != mask).any()
    assert (as_highdicom_reads(path, scan) != mask_on_source_grid(mask, scan).T).any()


def test_segments_say_what_they_are_in_public_codes(scan: Volume, tmp_path: Path) -> None:
    seg = pydicom.dcmread(written(segmented(scan, lopsided_mask(scan.voxels.shape)), tmp_path))
    told = [
        (
            item.SegmentNumber,
            item.SegmentLabel,
            item.SegmentedPropertyCategoryCodeSequence[0].CodeValue,
            item.SegmentedPropertyTypeCodeSequence[0].CodeValue,
            [code.CodeValue for code in item.get("AnatomicRegionSequence", ())],
        )
        for item in seg.SegmentSequence
    ]
    assert told == [
        (1, "Pancreas (without tumor)", "91723000", "15776009", []),
        (2, "Tumor", "49755003", "108369006", ["15776009"]),
    ]


def test_the_algorithm_is_the_bundle(scan: Volume, tmp_path: Path) -> None:
    seg = pydicom.dcmread(written(segmented(scan, lopsided_mask(scan.voxels.shape)), tmp_path))
    algorithm = seg.SegmentSequence[1].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "small"
    assert algorithm.AlgorithmParameters == f"bundle_sha256={'ab' * 32}"


def test_a_bundle_that_looks_for_no_tumors_has_no_segment_for_them(scan: Volume, tmp_path: Path) -> None:
    mask = np.minimum(lopsided_mask(scan.voxels.shape), 1)
    path = written(segmented(scan, mask, target="organ"), tmp_path)
    assert [item.SegmentLabel for item in pydicom.dcmread(path).SegmentSequence] == ["Pancreas"]
    np.testing.assert_array_equal(as_dcmqi_reads(path, scan), mask)


def test_a_bundle_that_looks_for_tumors_alone_has_their_segment_alone(scan: Volume, tmp_path: Path) -> None:
    mask = np.where(lopsided_mask(scan.voxels.shape) == 2, 2, 0).astype(np.uint8)
    path = written(segmented(scan, mask, status="tumor_only"), tmp_path)
    assert [(item.SegmentNumber, item.SegmentLabel) for item in pydicom.dcmread(path).SegmentSequence] == [(1, "Tumor")]
    np.testing.assert_array_equal(as_dcmqi_reads(path, scan), np.minimum(mask, 1))


def test_a_tumor_that_was_not_found_is_listed(scan: Volume, tmp_path: Path) -> None:
    path = written(segmented(scan, np.minimum(lopsided_mask(scan.voxels.shape), 1)), tmp_path)
    assert [item.SegmentLabel for item in pydicom.dcmread(path).SegmentSequence] == [
        "Pancreas (without tumor)",
        "Tumor",
    ]
    assert complaints(path) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_mask_has_all_frames(scan: Volume, kind: SegKind, tmp_path: Path) -> None:
    path = written(segmented(scan, np.zeros(scan.voxels.shape, dtype=np.uint8)), tmp_path, kind)
    segments = 2 if kind == "seg" else 1
    assert pydicom.dcmread(path).NumberOfFrames == segments * len(scan.voxels)
    assert not as_highdicom_reads(path, scan).any()
    assert complaints(path) - OF_THE_OLD_VALIDATOR == set()


def test_a_label_map_is_compressed(scan: Volume, tmp_path: Path) -> None:
    path = written(segmented(scan, lopsided_mask(scan.voxels.shape)), tmp_path, "labelmap")
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == pydicom.uid.RLELossless


def test_patient_and_study_are_those_of_the_scan(scan: Volume, tmp_path: Path) -> None:
    seg = pydicom.dcmread(written(segmented(scan, lopsided_mask(scan.voxels.shape)), tmp_path))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "FrameOfReferenceUID"):
        assert seg[keyword].value == PATIENT[keyword]
    assert seg.SeriesInstanceUID != SERIES
    assert seg.SeriesNumber >= 900
    assert "PatientPosition" not in seg


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_scan_and_mask_give_the_same_bytes(scan: Volume, kind: SegKind, tmp_path: Path) -> None:
    segmentation = segmented(scan, lopsided_mask(scan.voxels.shape))
    first, second = (written(segmentation, tmp_path / name, kind).read_bytes() for name in ("first", "second"))
    assert first == second


def test_another_mask_is_another_object(scan: Volume, tmp_path: Path) -> None:
    """An archive keeps the first of two objects with the same UID."""
    mask = lopsided_mask(scan.voxels.shape)
    paths = [written(segmented(scan, each), tmp_path / str(n)) for n, each in enumerate((mask, shifted(mask)))]
    first, second = map(pydicom.dcmread, paths)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_the_content_has_the_date_of_the_study(scan: Volume, tmp_path: Path) -> None:
    seg = pydicom.dcmread(written(segmented(scan, lopsided_mask(scan.voxels.shape)), tmp_path))
    assert (seg.ContentDate, seg.ContentTime) == ("20240229", "101500")


def test_without_any_date_the_content_has_one_that_cannot_be_taken_for_real(tmp_path: Path) -> None:
    volume = read_scan(write_scan(tmp_path / "scan", StudyDate="", StudyTime=""))
    path = written(segmented(volume, lopsided_mask(volume.voxels.shape)), tmp_path)
    assert pydicom.dcmread(path).ContentDate == "19000101"
    assert complaints(path) == set()


def test_frames_are_as_far_apart_as_the_slices_and_not_as_thick(scan: Volume, tmp_path: Path) -> None:
    seg = pydicom.dcmread(written(segmented(scan, lopsided_mask(scan.voxels.shape)), tmp_path))
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 2.5


def multi_frame(volume: Volume) -> Volume:
    """The same scan as if it had been read from one object, whose frames have another order than the slices."""
    assert volume.dicom is not None
    slices = list(volume.dicom.datasets)
    order = np.random.default_rng(2).permutation(len(slices)).tolist()
    full = []
    for index in order:
        dataset = pydicom.Dataset()
        dataset.update(slices[index])
        dataset.file_meta, dataset.RescaleType = slices[index].file_meta, "HU"
        dataset.PixelData = np.zeros((dataset.Rows, dataset.Columns), dtype=np.uint16).tobytes()
        full.append(dataset)
    whole = hd.legacy.LegacyConvertedEnhancedCTImage(
        full, series_instance_uid=generate_uid(), series_number=4, sop_instance_uid=generate_uid(), instance_number=1
    )
    groups = whole.PerFrameFunctionalGroupsSequence
    heights = [float(group.PlanePositionSequence[0].ImagePositionPatient[2]) for group in groups]
    frames = tuple(int(index) + 1 for index in np.argsort(heights))
    return replace(volume, dicom=DicomHeaders((whole,), frames))


def test_frames_of_one_object_are_referred_to_by_their_numbers(scan: Volume, tmp_path: Path) -> None:
    volume, mask = multi_frame(scan), lopsided_mask(scan.voxels.shape)
    path = written(segmented(volume, mask), tmp_path)
    assert complaints(path) == set()
    np.testing.assert_array_equal(as_dcmqi_reads(path, scan), mask)
    assert volume.dicom is not None
    assert volume.dicom.frames is not None
    read = hd.seg.segread(path).get_pixels_by_source_frame(
        volume.dicom.datasets[0].SOPInstanceUID,
        list(volume.dicom.frames),
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(read, mask_on_source_grid(mask, scan).T)


def test_a_patient_whom_the_libraries_doubt_is_copied_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    changes: dict[str, Any] = {"PatientName": "Doe John 3^^^^^^^", "PatientBirthDate": "24.12.55", "PatientSex": "m"}
    with pytest.warns(UserWarning, match="Invalid value"):
        folder = write_scan(tmp_path / "scan", **changes)
    volume = read_scan(folder)
    recwarn.clear()
    caplog.clear()
    path = written(segmented(volume, lopsided_mask(volume.voxels.shape)), tmp_path)
    assert [str(each.message) for each in recwarn] == []
    assert caplog.text == ""
    assert b"24.12.55" in path.read_bytes()


def test_a_slice_of_the_scan_is_never_overwritten(tmp_path: Path) -> None:
    volume = read_scan(write_scan(tmp_path / "scan"))
    image = next((tmp_path / "scan").rglob("*.dcm"))
    before = image.read_bytes()
    with pytest.raises(OutputError) as caught:
        write_segmentation(segmented(volume, lopsided_mask(volume.voxels.shape)), image, overwrite=True)
    assert (caught.value.code, image.read_bytes()) == ("E_SAME_FILE", before)
