"""A CT series comes out whole, in order and in Hounsfield units, or is refused with a sentence that says why."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from cascade_rt.errors import BackendUnavailableError, InputError
from cascade_rt.scans.dicom import find_series, read_series
from cascade_rt.scans.volume import Volume, read_mask
from tests.dicom_files import SliceFile, axial_slices, changed, write_series

HU = (np.arange(6 * 8 * 10).reshape(6, 8, 10) * 4 - 1000).astype(np.int16)
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
RLE, JPEG_LOSSLESS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"


def tissue() -> np.ndarray:
    """HU `[z, row, col]` of which nothing is doubtful: a body in air."""
    hu = np.full((4, 40, 40), -1000, dtype=np.int16)
    hu[:, 4:36, 4:36] = np.random.default_rng(0).integers(-120, 160, (4, 32, 32)) // 2 * 2
    return hu


def read(folder: Path) -> Volume:
    return read_series(find_series(folder))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(folder)
    return str(caught.value)


def test_shuffled_nested_files_become_the_scan(tmp_path: Path) -> None:
    volume = read(write_series(tmp_path / "scan", axial_slices(HU), shuffled=True))
    np.testing.assert_array_equal(volume.voxels, HU)
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert volume.name == "scan"


def test_the_affine_places_the_first_voxel_in_the_world_of_nifti(tmp_path: Path) -> None:
    volume = read(write_series(tmp_path, axial_slices(HU)))
    # LPS (-30, -20, -400) is RAS (30, 20, -400); the columns run to the left, the rows backward.
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [30, 20, -400, 1])
    np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [30 - 0.7, 20 - 0.8, -397.5, 1])


def test_the_grid_of_the_headers_is_that_of_the_volume(tmp_path: Path) -> None:
    series = find_series(write_series(tmp_path, axial_slices(HU)))
    volume = read_series(series)
    assert series.grid.shape == volume.voxels.shape
    np.testing.assert_allclose(series.grid.affine, volume.affine)


def test_a_patient_lying_prone_is_turned_into_the_canonical_frame(tmp_path: Path) -> None:
    # Rows and columns run the other way; the pixels are the same patient's.
    slices = [
        replace(entry, hu=entry.hu[::-1, ::-1], orientation=(-1, 0, 0, 0, -1, 0), position=(-23.7, -14.4, z))
        for entry in axial_slices(HU)
        for z in [entry.position[2]]
    ]
    volume = read(write_series(tmp_path, slices))
    np.testing.assert_array_equal(volume.voxels, HU)
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [30, 20, -400, 1])


def test_a_coronal_series_is_turned_into_the_canonical_frame(tmp_path: Path) -> None:
    slices = [
        SliceFile(HU[::-1, row], (-30.0, -20.0 + 0.8 * row, -387.5), row + 1, (1, 0, 0, 0, 0, -1), (2.5, 0.7))
        for row in range(HU.shape[1])
    ]
    np.testing.assert_array_equal(read(write_series(tmp_path, slices)).voxels, HU)


def test_each_slice_has_a_rescale_of_its_own(tmp_path: Path) -> None:
    slices = changed(axial_slices(HU), 2, slope=1.0, intercept=-2000.0)
    np.testing.assert_array_equal(read(write_series(tmp_path, slices)).voxels, HU)


def test_localisers_and_other_modalities_are_passed_over(tmp_path: Path) -> None:
    slices = axial_slices(HU)
    write_series(tmp_path / "ct", slices)
    replace(slices[0], series="9", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")).write(tmp_path / "scout.dcm")
    replace(slices[0], series="8", modality="SEG").write(tmp_path / "seg.dcm")
    (tmp_path / "LICENSE").write_text("not DICOM")
    np.testing.assert_array_equal(read(tmp_path).voxels, HU)


def test_files_need_no_ending(tmp_path: Path) -> None:
    for entry in axial_slices(HU):
        entry.write(tmp_path / f"CT.1.2.{entry.number}")
    np.testing.assert_array_equal(read(tmp_path).voxels, HU)


def test_a_slice_that_is_there_twice_is_taken_once(tmp_path: Path) -> None:
    slices = axial_slices(HU)
    write_series(tmp_path, slices)
    slices[3].write(tmp_path / "copy.dcm")
    np.testing.assert_array_equal(read(tmp_path).voxels, HU)


def test_two_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    slices = axial_slices(HU)
    write_series(tmp_path, slices)
    replace(slices[3], hu=slices[3].hu + 100).write(tmp_path / "phase2.dcm")
    assert "phase2.dcm: has the same position as 1-004.dcm but another image" in refusal(tmp_path)


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path: Path) -> None:
    write_series(tmp_path, axial_slices(HU))
    (tmp_path / "1-003.dcm").unlink()
    message = refusal(tmp_path)
    assert (
        "slices are missing: 1 between 1-002.dcm (image 2, at -397.50 mm) and 1-004.dcm (image 4, at -392.50" in message
    )


def test_slices_at_uneven_distances_are_refused(tmp_path: Path) -> None:
    slices = changed(axial_slices(HU), 2, position=(-30.0, -20.0, -394.4))
    assert "slices are unevenly spaced, 1.9 to 3.1 mm apart" in refusal(write_series(tmp_path, slices))


def test_spacing_that_differs_by_less_than_a_percent_is_taken(tmp_path: Path) -> None:
    slices = changed(axial_slices(HU), 2, position=(-30.0, -20.0, -394.99))
    assert read(write_series(tmp_path, slices)).voxels.shape == HU.shape


@pytest.mark.parametrize("step", [0.625, 1.25, 0.7, 2.5])
def test_positions_that_were_rounded_to_a_decimal_are_a_straight_line(tmp_path: Path, step: float) -> None:
    hu = np.repeat(HU, 5, axis=0)
    slices = [
        replace(entry, position=(-30.0, -20.0, round(-400.03 + step * index, 1)))
        for index, entry in enumerate(axial_slices(hu))
    ]
    volume = read(write_series(tmp_path, slices))
    np.testing.assert_array_equal(volume.voxels, hu)
    assert volume.spacing_mm[0] == pytest.approx(step, abs=0.1 / len(hu))


def test_a_slice_that_is_missing_among_rounded_positions_is_named(tmp_path: Path) -> None:
    slices = [
        replace(entry, position=(-30.0, -20.0, round(-400 + 0.625 * index, 1)))
        for index, entry in enumerate(axial_slices(np.repeat(HU, 5, axis=0)))
    ]
    write_series(tmp_path, slices)
    (tmp_path / "1-021.dcm").unlink()
    message = refusal(tmp_path)
    assert "slices are missing: 1 between 1-020.dcm (image 20, " in message
    assert "and 1-022.dcm (image 22, " in message


def test_an_oblique_series_with_rounded_positions_is_no_tilted_gantry(tmp_path: Path) -> None:
    turned = np.deg2rad(17)
    down, forward = np.cos(turned), np.sin(turned)
    slices = [
        replace(
            entry,
            orientation=(1, 0, 0, 0, down, -forward),
            position=(-30.0, round(-20 + 2.5 * forward * index, 1), round(-400 + 2.5 * down * index, 1)),
        )
        for index, entry in enumerate(axial_slices(HU))
    ]
    assert read(write_series(tmp_path, slices)).voxels.shape == HU.shape


def test_distances_that_grow_along_the_scan_are_refused(tmp_path: Path) -> None:
    heights = np.cumsum(np.linspace(2.5, 2.6, 30))
    slices = [
        replace(entry, position=(-30.0, -20.0, float(height)))
        for entry, height in zip(axial_slices(np.repeat(HU, 5, axis=0)), heights, strict=True)
    ]
    assert "slices are unevenly spaced, 2.5 to 2.6 mm apart" in refusal(write_series(tmp_path, slices))


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path: Path) -> None:
    tilted = [
        replace(entry, position=(-30.0, -20.0 + 0.67 * place, entry.position[2]))
        for place, entry in enumerate(axial_slices(HU))
    ]
    message = refusal(write_series(tmp_path, tilted))
    assert "gantry tilt of 15.0 degrees" in message
    assert "dcm2niix" in message


def test_two_series_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "arterial", axial_slices(HU))
    write_series(tmp_path / "venous", axial_slices(HU[:4], series="1.2.4"))
    assert "contains 2 CT series (of 6 and 4 slices); keep only one" in refusal(tmp_path)


def test_mr_is_refused_by_its_name(tmp_path: Path) -> None:
    assert "contains no CT series (only MR)" in refusal(write_series(tmp_path, axial_slices(HU, modality="MR")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hu": HU[0, :6]}, "differs in size from 1-001.dcm"),
        ({"spacing": (0.8, 0.9)}, "differs in pixel spacing"),
        ({"orientation": (0.8, 0.6, 0, -0.6, 0.8, 0)}, "differs in orientation"),
        ({"orientation": (1, 0, 0, 1, 0, 0)}, "not perpendicular unit vectors"),
        ({"spacing": (0.0, 0.7)}, "its image or pixel size is not positive"),
        ({"changes": (("ImagePositionPatient", None),)}, "has no ImagePositionPatient"),
        ({"changes": (("RescaleIntercept", None),)}, "has no rescale slope or intercept"),
        ({"changes": (("NumberOfFrames", 3),)}, "has several frames or color channels"),
        ({"changes": (("RescaleSlope", 0),)}, "its rescale slope or intercept is invalid"),
        ({"changes": (("Modality", None),)}, "has no modality"),
        ({"changes": (("Modality", ""),)}, "has no modality"),
        ({"modality": "OT"}, "belongs to the CT series but has another modality"),
        ({"changes": (("PixelData", b"\x00" * 20),)}, "is damaged or cannot be decoded"),
    ],
)
def test_a_slice_that_does_not_belong_or_is_damaged_is_named(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    message = refusal(write_series(tmp_path, changed(axial_slices(HU), 3, **changes)))
    assert "1-004.dcm" in message
    assert reason in message


def test_padding_of_int16_becomes_air_although_the_intercept_takes_it_out_of_range(tmp_path: Path) -> None:
    hu = tissue()
    stored = (hu + 1024).astype("<i2")
    stored[:, :, -2:] = -32768
    slices = [
        replace(entry, slope=1, changes=(("PixelRepresentation", 1), ("PixelData", stored[index].tobytes())))
        for index, entry in enumerate(axial_slices(hu))
    ]
    volume = read(write_series(tmp_path, slices))
    np.testing.assert_array_equal(volume.voxels, np.where(stored == -32768, -1024, hu))
    assert [warning.code for warning in volume.warnings] == ["W_PADDING"]


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
@pytest.mark.parametrize("ending", [".dcm", ""])
def test_files_without_a_preamble_are_read(tmp_path: Path, implicit: bool, ending: str) -> None:
    for entry in axial_slices(HU):
        dataset = pydicom.dcmread(entry.write(tmp_path / "whole.dcm"))
        path = tmp_path / "series" / f"{entry.number}{ending}"
        path.parent.mkdir(exist_ok=True)
        bare = pydicom.Dataset(dataset)
        pydicom.dcmwrite(path, bare, implicit_vr=implicit, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read(tmp_path / "series").voxels, HU)


def test_a_truncated_file_is_not_passed_over(tmp_path: Path) -> None:
    write_series(tmp_path, axial_slices(HU))
    (tmp_path / "1-006.dcm").write_bytes(b"")
    assert "1-006.dcm: is not a DICOM file (truncated copy?)" in refusal(tmp_path)


@pytest.mark.parametrize("length", [0, 100, 131, 140, 400])
def test_a_truncated_slice_without_an_ending_is_not_passed_over(tmp_path: Path, length: int) -> None:
    for entry in axial_slices(HU):
        entry.write(tmp_path / f"IM{entry.number:04d}")
    last = tmp_path / "IM0006"
    last.write_bytes(last.read_bytes()[:length])
    assert "IM0006: " in (message := refusal(tmp_path))
    assert "(truncated copy?); copy it again or remove it" in message


def test_what_is_no_slice_by_its_name_or_content_is_passed_over(tmp_path: Path) -> None:
    for entry in axial_slices(HU):
        entry.write(tmp_path / f"IM{entry.number:04d}")
    (tmp_path / "README").write_text("A licence, no slice.\n" * 20)
    (tmp_path / "Thumbs.db").write_bytes(bytes(300))
    (tmp_path / "notes.txt").touch()
    np.testing.assert_array_equal(read(tmp_path).voxels, HU)


def test_a_directory_of_the_medium_is_passed_over(tmp_path: Path) -> None:
    slices = axial_slices(HU)
    write_series(tmp_path, slices)
    replace(slices[0], changes=(("Modality", None),)).write(tmp_path / "DICOMDIR")
    np.testing.assert_array_equal(read(tmp_path).voxels, HU)


def test_a_voxel_of_metal_is_clipped_as_in_nifti(tmp_path: Path) -> None:
    slices = axial_slices(tissue())
    stored = ((slices[1].hu + 1024) // 2).astype("<u2")
    stored[20, 20] = 65000
    volume = read(write_series(tmp_path, changed(slices, 1, changes=(("PixelData", stored.tobytes()),))))
    assert volume.voxels[1, 20, 20] == np.iinfo(np.int16).max
    assert [warning.code for warning in volume.warnings] == ["W_CLIPPED"]


def test_numbers_that_are_no_hounsfield_units_are_refused_as_in_nifti(tmp_path: Path) -> None:
    slices = [replace(entry, changes=(("RescaleSlope", 1000),)) for entry in axial_slices(tissue())]
    assert "voxels must be within -32768 to 32767" in refusal(write_series(tmp_path, slices))


@pytest.mark.parametrize(
    ("hu", "options", "code"),
    [
        (tissue() + 1024, {}, "W_NOT_HU"),
        (tissue(), {"spacing": (12.0, 0.8, 0.7)}, "W_THICK"),
        (tissue(), {"spacing": (2.5, 80.0, 80.0)}, "W_SPACING"),
        (tissue(), {"slope": -2.0, "intercept": 1024.0}, "W_SLOPE"),
    ],
    ids=["offset", "thick", "pixels", "upside down"],
)
def test_numbers_and_geometry_are_judged_as_those_of_nifti(
    tmp_path: Path, hu: np.ndarray, options: dict[str, Any], code: str
) -> None:
    volume = read(write_series(tmp_path, axial_slices(hu, **options)))
    assert [warning.code for warning in volume.warnings] == [code]


def test_a_series_without_a_body_is_refused_unless_it_is_vouched_for(tmp_path: Path) -> None:
    write_series(tmp_path, axial_slices(np.full((3, 40, 40), -1000, dtype=np.int16)))
    assert "there is no body in the scan" in refusal(tmp_path)
    assert read_series(find_series(tmp_path), assume_hu=True).voxels.max() == -1000


def test_one_slice_is_no_scan(tmp_path: Path) -> None:
    assert "has 1 slice" in refusal(write_series(tmp_path, axial_slices(HU[:1])))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "contains no CT series (no DICOM files)" in refusal(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "the folder does not exist" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("syntax", "name", "package"),
    [
        (JPEG_LS, "JPEG-LS", "pyjpegls"),
        (RLE, "RLE", "pylibjpeg-rle"),
        (JPEG_LOSSLESS, "JPEG Lossless,", "python-gdcm$"),
    ],
)
def test_a_missing_decoder_is_named_before_any_pixel_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, name: str, package: str
) -> None:
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    write_series(tmp_path, axial_slices(HU, syntax=syntax))
    with pytest.raises(BackendUnavailableError, match=rf"{name} .* needs a decoder; run: pip install .*{package}"):
        find_series(tmp_path)


def test_a_missing_jpeg_2000_decoder_points_to_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", False)
    write_series(tmp_path, axial_slices(HU, syntax=JPEG_2000))
    with pytest.raises(BackendUnavailableError, match=r"JPEG 2000 .*; run: pip install 'pydicom>="):
        find_series(tmp_path)


def test_without_pydicom_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(BackendUnavailableError, match=r"\(pydicom\); run: pip install 'pydicom>="):
        find_series(tmp_path)


def test_a_real_series_is_read_and_its_label_lies_on_the_liver(sample_ct: Path) -> None:
    folder = sample_ct / "totalsegmentator"
    volume = read(folder / "example_ct_dicom")
    assert volume.voxels.shape == (20, 512, 512)
    assert volume.spacing_mm == pytest.approx((2.0, 0.9765625, 0.9765625))
    label = read_mask(folder / "example_seg_dicom.nii.gz", like=volume)
    liver = volume.voxels[label == 5]
    assert 60 < liver.mean() < 130
    assert liver.std() < 25


def test_slices_in_linked_folders_are_of_the_scan(tmp_path: Path) -> None:
    write_series(tmp_path / "first", axial_slices(HU)[:3])
    write_series(tmp_path / "archive", axial_slices(HU)[3:])
    (tmp_path / "scan").mkdir()
    for name, target in (("a", "first"), ("b", "archive"), ("again", "archive"), ("round", "scan")):
        (tmp_path / "scan" / name).symlink_to(tmp_path / target)
    assert read(tmp_path / "scan").voxels.shape == HU.shape


def test_a_pipe_among_the_slices_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    write_series(tmp_path, axial_slices(HU))
    os.mkfifo(tmp_path / "1-007.dcm")
    assert "1-007.dcm: is a pipe or a device, not a regular file" in refusal(tmp_path)


def test_a_modality_that_is_none_is_not_quoted(tmp_path: Path) -> None:
    message = refusal(write_series(tmp_path, axial_slices(HU[:2], modality="DOE")))
    assert message.endswith("contains no CT series (only another modality); choose the folder of one CT series")


def test_a_number_that_is_none_is_not_quoted(tmp_path: Path) -> None:
    path = write_series(tmp_path, axial_slices(HU[:2])) / "1-001.dcm"
    content = path.read_bytes()
    assert content.count(b"-30.0\\") == 1
    path.write_bytes(content.replace(b"-30.0\\", b"DOE\x1b[\\"))
    assert refusal(tmp_path).endswith("1-001.dcm: is damaged or cannot be decoded; copy it again")
