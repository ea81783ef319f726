"""Masks go back on the grid of the scan's own file; labels come into the frame of a scan."""

import math
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nibabel.orientations import inv_ornt_aff

from cascade_rt.errors import InputError, OutputError, OutputExistsError
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import Volume, mask_on_source_grid, read_labels, read_mask, write_mask
from tests.volume_files import (
    ANATOMY,
    CUBE,
    GOOD,
    LPS_AFFINE,
    ORIENTATIONS,
    SHEAR,
    Array,
    assert_placed_alike,
    in_every_orientation,
    in_every_world,
    nifti,
    oriented,
    patched,
    rotation,
    save,
    unplaced,
)

SAMPLES = (Path(__file__).parents[2] / ".." / "shared" / "data").resolve()
SAMPLE_SCANS = ("nih_pancreas_ct/case1.nii.gz", "totalsegmentator/example_ct_sm.nii.gz", "evalseg/CT_370.nii.gz")

LABELS = (ANATOMY.astype(int) % 3).astype(np.uint8)


def labelled_points(array: Array, affine: Array, world: Array) -> set[tuple[int, ...]]:
    """Label and place of every labelled voxel; places are world points, counted in voxels of the anatomy."""
    index = np.argwhere(array)
    places = nib.affines.apply_affine(np.linalg.inv(world @ LPS_AFFINE) @ affine, index)
    np.testing.assert_allclose(places, np.rint(places), atol=1e-3)
    return {(*place, label) for *place, label in np.column_stack([np.rint(places), array[tuple(index.T)]]).tolist()}


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return save(tmp_path / "scan.nii.gz", GOOD)


# The source grid


@in_every_orientation
@in_every_world
def test_every_orientation_gets_its_labels_back_in_place(orientation: Array, world: Array, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(*oriented(orientation, world))))
    write_mask(LABELS, volume, tmp_path / "mask.nii")
    written = nib.load(tmp_path / "mask.nii")
    expected = labelled_points(LABELS.T, world @ LPS_AFFINE, world)
    assert labelled_points(np.asarray(written.dataobj), written.affine, world) == expected


def test_the_mask_of_an_array_has_the_affine_of_the_array(tmp_path: Path) -> None:
    affine = rotation(20, 15) @ LPS_AFFINE
    volume = Volume.from_array(ANATOMY.T, affine)
    write_mask(LABELS, volume, tmp_path / "mask.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii").affine, affine, rtol=1e-6)


def test_the_mask_of_an_array_has_the_spacing_of_the_array(tmp_path: Path) -> None:
    write_mask(LABELS, Volume.from_array(ANATOMY.T, LPS_AFFINE), tmp_path / "mask.nii")
    assert nib.load(tmp_path / "mask.nii").header.get_zooms() == pytest.approx((0.7, 0.8, 2.5))


@st.composite
def headers(draw: st.DrawFn) -> nib.Nifti1Header:
    """The header of some scan: any size, spacing, orientation, tilt, with any sform and qform."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 2))
    units, scale = draw(st.sampled_from([(0, 1), (1, 1e-3), (2, 1), (3, 1e3), (10, 1)]))
    turned = rotation(*angles) @ np.diag([*spacing, 1]) @ inv_ornt_aff(draw(st.sampled_from(ORIENTATIONS)), shape)
    header = draw(st.sampled_from([nib.Nifti1Header, nib.Nifti2Header]))(endianness=draw(st.sampled_from("<>")))
    header.set_data_shape(shape)
    header.set_data_dtype(draw(st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])))
    header.set_qform(np.diag([scale] * 3 + [1]) @ turned, code=draw(st.integers(0, 4)))
    header.set_sform(np.diag([scale] * 3 + [1]) @ SHEAR @ turned, code=draw(st.integers(0, 4)))
    header.set_data_offset(header.single_vox_offset)
    header["scl_slope"], header["scl_inter"] = draw(st.sampled_from([(0, 0), (1, 0), (1, -1024), (0.5, 3), (-2, 7.5)]))
    header["xyzt_units"] = units
    assume(nibabel_reads_qform(header))
    return header


def nibabel_reads_qform(header: nib.Nifti1Header) -> bool:
    """Whether nibabel takes what it has written: rounding may leave its own unit quaternions too long for it."""
    try:
        header.get_qform()
    except ValueError:
        return False
    return True


@settings(max_examples=150)
@given(header=headers(), suffix=st.sampled_from([".nii", ".nii.gz"]))
def test_a_mask_lies_exactly_on_the_grid_of_its_scan(header: nib.Nifti1Header, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scan, written = Path(folder, "scan.nii"), Path(folder, f"mask{suffix}")
        voxels = bytes(math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize)
        scan.write_bytes(header.binaryblock + bytes(4) + voxels)
        volume = read_volume(scan, ScanOptions(assume_hu=True, assume_orientation="RAS"))
        write_mask(np.zeros(volume.voxels.shape, np.uint8), volume, written)
        assert nib.load(written).shape == nib.load(scan).shape
        np.testing.assert_array_equal(nib.load(written).affine, nib.load(scan).affine)
        assert_placed_alike(nib.load(written).header, header)


@pytest.mark.parametrize("sample", SAMPLE_SCANS)
def test_the_mask_of_a_sample_scan_lies_exactly_on_its_grid(sample: str, tmp_path: Path) -> None:
    path = SAMPLES / sample
    if not path.is_file():
        pytest.skip(f"the sample CT file {sample} is not here")
    volume = read_volume(path)
    write_mask(np.zeros(volume.voxels.shape, np.uint8), volume, tmp_path / "mask.nii.gz")
    assert_placed_alike(nib.load(tmp_path / "mask.nii.gz").header, nib.load(path).header)
    assert nib.load(tmp_path / "mask.nii.gz").shape == nib.load(path).shape


def test_the_labels_of_a_sample_scan_lie_on_soft_tissue() -> None:
    folder = SAMPLES / "nih_pancreas_ct"
    if not folder.is_dir():
        pytest.skip("the sample CT files of nih_pancreas_ct are not here")
    volume = read_volume(folder / "case1.nii.gz")
    labels = read_mask(folder / "case1_label.nii.gz", like=volume)
    assert 0 < volume.voxels[labels == 1].mean() < 200


def test_a_mask_on_the_source_grid_is_a_view() -> None:
    volume = Volume.from_array(*oriented(ORIENTATIONS[5], np.eye(4)))
    assert np.shares_memory(mask_on_source_grid(LABELS, volume), LABELS)


# Mask files


@pytest.mark.parametrize("mask", [LABELS[:-1], LABELS.astype(bool)], ids=["shape", "type"])
def test_a_mask_of_another_kind_is_a_bug(mask: Array, tmp_path: Path) -> None:
    volume = Volume.from_array(ANATOMY.T, LPS_AFFINE)
    with pytest.raises(ValueError, match=r"mask must be uint8 \(4, 5, 6\), got"):
        write_mask(mask, volume, tmp_path / "mask.nii")


def test_the_same_mask_gives_the_same_bytes(scan: Path, tmp_path: Path) -> None:
    for name in ("first.nii.gz", "second.nii.gz"):
        write_mask(LABELS, read_volume(scan), tmp_path / name)
    assert (tmp_path / "first.nii.gz").read_bytes() == (tmp_path / "second.nii.gz").read_bytes()


def test_the_gzip_header_holds_neither_time_nor_name(scan: Path, tmp_path: Path) -> None:
    write_mask(LABELS, read_volume(scan), tmp_path / "mask.nii.gz")
    assert (tmp_path / "mask.nii.gz").read_bytes()[3:8] == bytes(5)


def test_a_mask_says_that_its_labels_are_not_scaled(scan: Path, tmp_path: Path) -> None:
    write_mask(LABELS, read_volume(scan), tmp_path / "mask.nii")
    assert np.frombuffer((tmp_path / "mask.nii").read_bytes()[112:120], "<f4").tolist() == [1, 0]


def test_nothing_said_about_the_patient_is_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ANATOMY.T, LPS_AFFINE)
    image.header["descrip"] = image.header["db_name"] = image.header["aux_file"] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    image.to_filename(tmp_path / "scan.nii")
    write_mask(LABELS, read_volume(tmp_path / "scan.nii"), tmp_path / "mask.nii")
    assert b"Jane" not in (tmp_path / "mask.nii").read_bytes()


@pytest.mark.parametrize(
    ("codes", "offset", "length"),
    [((1, 0), 280, 48), ((0, 1), 256, 24), ((1, 1), 92, 16), ((0, 1), 80, 12)],
    ids=["sform without code", "qform without code", "pixdim of axes that are not there", "pixdim beside an sform"],
)
def test_no_text_in_a_field_that_places_nothing_reaches_the_mask(
    codes: tuple[int, int], offset: int, length: int, tmp_path: Path
) -> None:
    text = (b"DOE^JOHN 19500101 MRN12345 " * 2)[:length]
    content = patched(patched(GOOD, 252, list(codes), "<i2"), offset, list(text), "u1")
    write_mask(LABELS, read_volume(save(tmp_path / "scan.nii", content)), tmp_path / "mask.nii")
    assert text[:8] not in (tmp_path / "mask.nii").read_bytes()


def test_an_invalid_qform_next_to_an_sform_is_not_copied_to_the_mask(tmp_path: Path) -> None:
    content = patched(patched(GOOD, 252, [1, 1], "<i2"), 256, list(b"DOE^JOHN^AND"), "u1")
    write_mask(LABELS, read_volume(save(tmp_path / "scan.nii", content)), tmp_path / "mask.nii")
    assert nib.load(tmp_path / "mask.nii").header["qform_code"] == 0
    assert b"DOE^" not in (tmp_path / "mask.nii").read_bytes()


@pytest.mark.parametrize(("length", "kind"), [(32767, nib.Nifti1Image), (32768, nib.Nifti2Image)])
def test_the_mask_of_an_array_is_nifti_2_only_if_a_side_is_too_long(length: int, kind: type, tmp_path: Path) -> None:
    volume = Volume.from_array(np.zeros((length, 1, 1), np.int16), LPS_AFFINE)
    write_mask(np.zeros((1, 1, length), np.uint8), volume, tmp_path / "mask.nii")
    assert type(nib.load(tmp_path / "mask.nii")) is kind


def test_an_existing_mask_is_kept(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "mask.nii").write_bytes(b"old")
    with pytest.raises(OutputExistsError, match=r"mask\.nii: already exists"):
        write_mask(LABELS, read_volume(scan), tmp_path / "mask.nii")


def test_an_existing_mask_is_replaced_if_asked_for(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "mask.nii").write_bytes(b"old")
    write_mask(LABELS, read_volume(scan), tmp_path / "mask.nii", overwrite=True)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii"), LABELS)


@pytest.mark.parametrize("link", ["same", "symlink_to", "hardlink_to"])
def test_the_scan_itself_is_never_overwritten(link: str, scan: Path, tmp_path: Path) -> None:
    target = scan if link == "same" else tmp_path / "mask.nii.gz"
    if target != scan:
        getattr(target, link)(scan)
    with pytest.raises(OutputError, match="this is the scan itself") as caught:
        write_mask(LABELS, read_volume(scan), target, overwrite=True)
    assert caught.value.code == "E_SAME_FILE"


@pytest.mark.parametrize("name", ["mask", "mask.png", "mask.gz", "mask.nii.zip", "mask.mhd", "mask.nhdr"])
def test_another_ending_is_refused(name: str, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"use a name that ends in \.nii\.gz, \.nii, \.seg\.nrrd, \.nrrd or \.mha"):
        write_mask(LABELS, read_volume(scan), tmp_path / name)


# Labels


@in_every_orientation
def test_labels_come_into_the_frame_of_a_scan_in_another_orientation(orientation: Array, tmp_path: Path) -> None:
    other = Volume.from_array(*oriented(orientation, np.eye(4)))
    write_mask(LABELS, other, tmp_path / "labels.nii")
    scan = Volume.from_array(ANATOMY.T, LPS_AFFINE)
    np.testing.assert_array_equal(read_mask(tmp_path / "labels.nii", like=scan), LABELS)


def test_labels_may_be_scaled(tmp_path: Path) -> None:
    path = save(tmp_path / "labels.nii", nifti(LABELS.T * np.uint8(100), slope=0.01))
    np.testing.assert_array_equal(read_mask(path), LABELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nifti(CUBE + 0.5), "labels must be integers; is it a probability map"),
        (nifti((CUBE + 256).astype("<i2")), "voxels must be within 0 to 255, found 256 to 256; is it a label file"),
        (nifti((CUBE - 1).astype("<i2")), "voxels must be within 0 to 255, found -1 to 0; is it a label file"),
        (nifti((LABELS.T - 0.4).astype("<f4")), "labels must be integers; is it a probability map"),
        (nifti(CUBE * 0 + 255.4), "labels must be integers; is it a probability map"),
        (nifti(LABELS.T, slope=-1, inter=2), "its slope of -1 inverts the labels; export it again"),
        (nifti(LABELS.T[:, :, 1:]), r"has shape \(3, 5, 6\), but the scan has \(4, 5, 6\)"),
        (nifti(LABELS.T, LPS_AFFINE + 0.08 * np.eye(4, k=3)), "lies 0.* mm off the grid of the scan"),
    ],
    ids=[
        *("fraction", "too large", "negative", "a little below 0", "a little above 255", "upside down"),
        *("other shape", "shifted"),
    ],
)
def test_unfit_labels_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "labels.nii", content)
    with pytest.raises(InputError, match=message):
        read_mask(path, like=Volume.from_array(ANATOMY.T, LPS_AFFINE))


def test_labels_within_a_tenth_of_a_voxel_are_accepted(tmp_path: Path) -> None:
    path = save(tmp_path / "labels.nii", nifti(LABELS.T, LPS_AFFINE + 0.06 * np.eye(4, k=3)))
    np.testing.assert_array_equal(read_mask(path, like=Volume.from_array(ANATOMY.T, LPS_AFFINE)), LABELS)


@pytest.mark.parametrize("axes", ["LAS", "LPS", "RAS", "LPI", "SRA"])
def test_labels_without_orientation_lie_as_was_assumed_of_their_scan(axes: str, tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii", unplaced(nifti(LABELS.T.astype("<i2"))))
    labels = save(tmp_path / "labels.nii", unplaced(nifti(LABELS.T)))
    volume = read_volume(scan, ScanOptions(assume_orientation=axes, assume_hu=True))
    np.testing.assert_array_equal(read_mask(labels, like=volume), volume.voxels)


def test_a_mask_without_orientation_goes_back_on_its_scan(tmp_path: Path) -> None:
    options = ScanOptions(assume_orientation="LPI", assume_hu=True)
    scan = read_volume(save(tmp_path / "scan.nii", unplaced(nifti(ANATOMY.T))), options)
    write_mask(LABELS, scan, tmp_path / "mask.nii")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii", like=scan), LABELS)


def test_doubts_about_a_label_file_are_reported(tmp_path: Path) -> None:
    path = save(tmp_path / "labels.nii", nifti(LABELS.T, slope=math.nan) + bytes(7))
    found = read_labels(path, like=Volume.from_array(ANATOMY.T, LPS_AFFINE))
    assert [warning.code for warning in found.warnings] == ["W_SLOPE", "W_TRAILING"]


def test_labels_without_any_background_are_doubtful(tmp_path: Path) -> None:
    path = save(tmp_path / "labels.nii", nifti(LABELS.T, inter=1))
    (warning,) = read_labels(path, like=Volume.from_array(ANATOMY.T, LPS_AFFINE)).warnings
    assert (warning.code, str(warning)) == ("W_LABELS", "no voxel is background; the lowest label is 1")


def test_doubts_about_a_mask_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_mask(save(tmp_path / "labels.nii", nifti(LABELS.T) + bytes(7)))
    assert "labels.nii: the file has trailing data after the image" in caplog.text
