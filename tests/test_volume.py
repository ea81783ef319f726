"""Scans come into the canonical frame from any file, masks go back on the file's own grid, bad files are refused."""

import gzip
import itertools
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff

from cascade_rt.errors import InputError, OutputError, OutputExistsError
from cascade_rt.volume import Volume, mask_on_source_grid, read_mask, read_volume, write_mask

Array = npt.NDArray[Any]

SAMPLES = (Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
SAMPLE_SCANS = ("nih_pancreas_ct/case1.nii.gz", "totalsegmentator/example_ct_sm.nii.gz", "evalseg/CT_370.nii.gz")

# [z, row, col]; every voxel differs, so that no flip or permutation goes unseen.
ANATOMY = (np.arange(4 * 5 * 6).reshape(4, 5, 6) * 7 - 400).astype(np.int16)
LABELS = (ANATOMY.astype(int) % 3).astype(np.uint8)
LPS_AFFINE = np.array([[-0.7, 0, 0, 31], [0, -0.8, 0, 12], [0, 0, 2.5, -90], [0, 0, 0, 1]])
ORIENTATIONS = [
    np.column_stack([axes, signs])
    for axes in itertools.permutations((0, 1, 2))
    for signs in itertools.product((1, -1), repeat=3)
]


def rotation(around_x: float, around_z: float) -> Array:
    """A 4x4 rotation; angles in degrees."""
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(z=math.radians(around_z), x=math.radians(around_x)))


SHEAR = np.array([[1, 0, 0, 0], [0, 1, 0.25, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
WORLDS = {"straight": np.eye(4), "oblique": rotation(20, 15), "sheared": SHEAR}


def oriented(orientation: Array, world: Array) -> tuple[Array, Array]:
    """The anatomy `[i, j, k]` with its axes in one of the 48 orientations, and its affine."""
    to_source = orientation.astype(float)
    return apply_orientation(ANATOMY.T, to_source), world @ LPS_AFFINE @ inv_ornt_aff(to_source, ANATOMY.T.shape)


def nifti(array: Array, affine: Array = LPS_AFFINE, *, slope: float = 1, inter: float = 0) -> bytes:
    """The plain file of `[i, j, k]`: voxels as they are, the scaling in the header only."""
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    return patched(image.to_bytes(), 112, [slope, inter], "<f4")


def patched(content: bytes, offset: int, values: list[float], dtype: str) -> bytes:
    """Put other numbers into a file."""
    changed = np.array(values, dtype).tobytes()
    return content[:offset] + changed + content[offset + len(changed) :]


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


GOOD = nifti(ANATOMY.T)


def labelled_points(array: Array, affine: Array, world: Array) -> set[tuple[int, ...]]:
    """Label and place of every labelled voxel; places are world points, counted in voxels of the anatomy."""
    index = np.argwhere(array)
    places = nib.affines.apply_affine(np.linalg.inv(world @ LPS_AFFINE) @ affine, index)
    np.testing.assert_allclose(places, np.rint(places), atol=1e-3)
    return {(*place, label) for *place, label in np.column_stack([np.rint(places), array[tuple(index.T)]]).tolist()}


def geometry(path: Path) -> dict[str, Any]:
    header = nib.load(path).header
    names = "pixdim xyzt_units sform_code srow_x srow_y srow_z qform_code quatern_b quatern_c quatern_d"
    return {name: header[name].tolist() for name in (*names.split(), "qoffset_x", "qoffset_y", "qoffset_z")}


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return save(tmp_path / "scan.nii.gz", GOOD)


@pytest.fixture(params=ORIENTATIONS, ids=lambda o: "".join(nib.orientations.ornt2axcodes(o)))
def orientation(request: pytest.FixtureRequest) -> Array:
    return np.asarray(request.param)


@pytest.fixture(params=WORLDS.values(), ids=WORLDS)
def world(request: pytest.FixtureRequest) -> Array:
    return np.asarray(request.param)


# The canonical frame


def test_every_orientation_gives_the_same_voxels(orientation: Array, world: Array, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(*oriented(orientation, world))))
    np.testing.assert_array_equal(volume.voxels, ANATOMY)


def test_every_orientation_gives_the_same_affine(orientation: Array, world: Array, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(*oriented(orientation, world))))
    np.testing.assert_allclose(volume.affine, (world @ LPS_AFFINE)[:, [2, 1, 0, 3]], atol=1e-4)


def test_every_orientation_gets_its_labels_back_in_place(orientation: Array, world: Array, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(*oriented(orientation, world))))
    write_mask(LABELS, volume, tmp_path / "mask.nii")
    written = nib.load(tmp_path / "mask.nii")
    expected = labelled_points(LABELS.T, world @ LPS_AFFINE, world)
    assert labelled_points(np.asarray(written.dataobj), written.affine, world) == expected


def test_the_axes_run_to_superior_posterior_and_left(scan: Path) -> None:
    directions = np.sign(np.round(read_volume(scan).affine[:3, :3], 6))
    np.testing.assert_array_equal(directions, [[0, 0, -1], [0, -1, 0], [1, 0, 0]])


def test_spacing_is_in_the_order_of_the_axes(scan: Path) -> None:
    assert read_volume(scan).spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_the_voxel_volume_of_sheared_axes_is_that_of_the_straight_ones(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(ANATOMY.T, SHEAR @ LPS_AFFINE)))
    assert volume.voxel_volume_ml == pytest.approx(0.7 * 0.8 * 2.5 / 1000)


def test_voxels_are_contiguous_whatever_the_orientation(orientation: Array, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(*oriented(orientation, np.eye(4)))))
    assert volume.voxels.flags.c_contiguous


# Arrays


def test_an_array_gives_the_voxels_of_its_file(scan: Path) -> None:
    volume = Volume.from_array(ANATOMY.T, LPS_AFFINE)
    np.testing.assert_array_equal(volume.voxels, read_volume(scan).voxels)


def test_an_int16_array_in_the_usual_orientation_is_not_copied() -> None:
    assert np.shares_memory(Volume.from_array(ANATOMY.T, LPS_AFFINE).voxels, ANATOMY)


def test_the_mask_of_an_array_has_the_affine_of_the_array(tmp_path: Path) -> None:
    affine = rotation(20, 15) @ LPS_AFFINE
    volume = Volume.from_array(ANATOMY.T, affine)
    write_mask(LABELS, volume, tmp_path / "mask.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii").affine, affine, rtol=1e-6)


def test_the_mask_of_an_array_has_the_spacing_of_the_array(tmp_path: Path) -> None:
    write_mask(LABELS, Volume.from_array(ANATOMY.T, LPS_AFFINE), tmp_path / "mask.nii")
    assert nib.load(tmp_path / "mask.nii").header.get_zooms() == pytest.approx((0.7, 0.8, 2.5))


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (ANATOMY[0], LPS_AFFINE, "a scan has 3 axes"),
        (ANATOMY.astype(bool), LPS_AFFINE, "must be integers or real numbers"),
        (ANATOMY, np.eye(3), "must be a 4x4 matrix"),
    ],
    ids=["2D", "bool", "3x3 affine"],
)
def test_an_unfit_array_is_refused(array: Array, affine: Array, message: str) -> None:
    with pytest.raises(InputError, match=f"phantom: .*{message}"):
        Volume.from_array(array, affine, name="phantom")


# What files may look like


@pytest.mark.parametrize("file_name", ["case.nii", "case.nii.gz", "case.NII.GZ"])
def test_the_name_is_that_of_the_file_without_its_ending(file_name: str, scan: Path, tmp_path: Path) -> None:
    scan.rename(tmp_path / file_name)
    assert read_volume(tmp_path / file_name).name == "case"


@pytest.mark.parametrize(("file_name", "content"), [("scan.nii", gzip.compress(GOOD)), ("scan.nii.gz", GOOD)])
def test_compression_is_told_from_the_content(file_name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / file_name).write_bytes(content)
    np.testing.assert_array_equal(read_volume(tmp_path / file_name).voxels, ANATOMY)


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_kind_of_nifti_gives_native_int16(kind: Any, endianness: str, tmp_path: Path) -> None:
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(np.int16)
    kind(ANATOMY.T, LPS_AFFINE, header).to_filename(tmp_path / "scan.nii")
    voxels = read_volume(tmp_path / "scan.nii").voxels
    assert voxels.dtype == np.dtype(np.int16)
    np.testing.assert_array_equal(voxels, ANATOMY)


def test_a_file_of_several_gzip_members_is_read(scan: Path) -> None:
    scan.write_bytes(gzip.compress(GOOD[:400]) + gzip.compress(GOOD[400:]))
    np.testing.assert_array_equal(read_volume(scan).voxels, ANATOMY)


def test_a_fourth_axis_of_length_1_is_dropped(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(ANATOMY.T[..., None])))
    np.testing.assert_array_equal(volume.voxels, ANATOMY)


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "expected"),
    [
        (np.array([0, 3, 255], np.uint8), 8.0, -1024.0, [-1024, -1000, 1016]),
        (np.array([0, 1, 3], np.int16), 0.3, 0.0, [0, 0, 1]),
        (np.array([0, 24, 4095], np.int16), 1.0, -1024.0, [-1024, -1000, 3071]),
        (np.array([0, 40000, 65535], np.uint16), 1.0, -32768.0, [-32768, 7232, 32767]),
        (np.array([-70000, -69000, -50000], np.int32), 1.0, 70000.0, [0, 1000, 20000]),
        (np.array([2**64 - 3, 2**64 - 2, 2**64 - 1], np.uint64), 1.0, -(2.0**64), [-3, -2, -1]),
        (np.array([-1024, 0, 3071], np.float64), 1.0, 0.0, [-1024, 0, 3071]),
        (np.array([-0.6, 0.4, 0.6], np.float32), 1.0, 0.0, [-1, 0, 1]),
        (np.array([1, 2, 3], np.int16), math.nan, 0.0, [1, 2, 3]),
        (np.array([1, 2, 3], np.int16), 0.0, 0.0, [1, 2, 3]),
    ],
    ids=["uint8", "fraction", "intercept", "uint16", "int32", "uint64", "float64", "rounded", "no slope", "slope 0"],
)
def test_stored_values_become_hounsfield_units(
    stored: Array, slope: float, inter: float, expected: list[int], tmp_path: Path
) -> None:
    path = save(tmp_path / "scan.nii", nifti(stored.reshape(1, 1, 3), slope=slope, inter=inter))
    assert read_volume(path).voxels.ravel().tolist() == expected


# What files may not look like


CUBE = np.zeros((2, 2, 2))
NO_NIFTI = "this is not a NIfTI file; convert"
TOO_SHORT = "the file ends too early .*; copy it again"
DAMAGED = "its compressed data are damaged; copy it again"
BAD_HEADER = "its NIfTI header is damaged or of an unknown kind"
NOT_3D = "a scan has 3 axes, .* save one 3D image"
NO_VOXELS = "the image has no voxels, .* export it again"
NOT_REAL = "voxels must be integers or real numbers, .* export it as int16"
NOT_MM = "the affine must be a 4x4 matrix of numbers that can be mm; export it again"
NOT_FINITE = "some voxels are not finite numbers; export it again"
NOT_HU = "voxels must lie within .*; export the scan in Hounsfield units"
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty; copy it again"),
    "text": (b"<html>Please log in</html>", NO_NIFTI),
    "gzip of text": (gzip.compress(b"<html>Please log in</html>"), NO_NIFTI),
    "gzip of nothing": (gzip.compress(b""), NO_NIFTI),
    "header of a pair": (GOOD.replace(b"n+1", b"ni1"), "its voxels are in another file"),
    "half a gzip": (gzip.compress(GOOD)[:200], TOO_SHORT),
    "gzip without trailer": (gzip.compress(GOOD)[:-8], TOO_SHORT),
    "gzip of half a file": (gzip.compress(GOOD[:400]), TOO_SHORT),
    "plain without the last byte": (GOOD[:-1], TOO_SHORT),
    "half a header": (gzip.compress(GOOD[:100]), TOO_SHORT),
    "terabytes promised": (gzip.compress(patched(GOOD, 42, [32767] * 3, "<i2")), TOO_SHORT),
    # Without compression only the checksum tells that a voxel has changed.
    "flipped bit": (patched(gzip.compress(GOOD, 0), 450, [0x55], "u1"), DAMAGED),
    "damaged block": (patched(gzip.compress(GOOD), 10, [0xFF], "u1"), DAMAGED),
    "2D": (nifti(ANATOMY[0]), NOT_3D),
    "4D": (nifti(np.stack([ANATOMY] * 2, axis=3)), NOT_3D),
    "no axes": (patched(GOOD, 40, [0], "<i2"), NO_VOXELS),
    "axis of length 0": (patched(GOOD, 42, [0], "<i2"), NO_VOXELS),
    "axis of negative length": (patched(GOOD, 42, [-6], "<i2"), NO_VOXELS),
    "RGB": (nifti(CUBE.astype([("R", "u1"), ("G", "u1"), ("B", "u1")])), NOT_REAL),
    "complex": (nifti(CUBE.astype(np.complex64)), NOT_REAL),
    "unknown type": (patched(GOOD, 70, [999], "<i2"), f"{BAD_HEADER} .*999"),
    "wrong magic": (GOOD.replace(b"n+1", b"n+9"), f"{BAD_HEADER} .*magic"),
    "voxels inside the header": (patched(GOOD, 108, [0], "<f4"), f"{BAD_HEADER} .*inside the header"),
    "endless intercept": (patched(GOOD, 116, [np.inf], "<f4"), f"{BAD_HEADER} .*intercept"),
    "affine with NaN": (patched(GOOD, 280, [np.nan], "<f4"), NOT_MM),
    "affine with 1e30": (patched(GOOD, 280, [1e30], "<f4"), NOT_MM),
    "axis of 1e-30 mm": (patched(GOOD, 280, [1e-30], "<f4"), "the affine is singular"),
    "two axes alike": (patched(GOOD, 280, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "<f4"), "the affine is singular"),
    "NaN voxel": (nifti((CUBE + np.nan).astype("<f4")), NOT_FINITE),
    "infinite voxel": (nifti((CUBE + np.inf).astype("<f4")), NOT_FINITE),
    "integers too large": (nifti((CUBE + 40000).astype("<u2")), NOT_HU),
    "numbers too large": (nifti(CUBE + 1e30), NOT_HU),
    "scaled beyond all numbers": (nifti(CUBE + 1e300, slope=1e30), NOT_FINITE),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_with_a_remedy(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'scan.nii.gz'))}: {message}"):
        read_volume(tmp_path / "scan.nii.gz")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.nii: there is no such file; check the path"):
        read_volume(tmp_path / "scan.nii")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a folder; name one"):
        read_volume(tmp_path)


def test_a_path_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^scan\.nii: "):
        read_volume("scan.nii")


def test_an_unreadable_file_is_refused(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cascade_rt.volume.open", refuse, raising=False)
    with pytest.raises(InputError, match=r"the file cannot be read \(Permission denied\); check its permissions"):
        read_volume(scan)


def test_nibabel_prints_nothing_about_a_bad_header(scan: Path, caplog: pytest.LogCaptureFixture) -> None:
    scan.write_bytes(GOOD.replace(b"n+1", b"n+9"))
    with pytest.raises(InputError, match="magic"):
        read_volume(scan)
    assert {record.name for record in caplog.records} <= {"cascade_rt.volume"}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damaged_header_is_read_or_refused(changes: list[tuple[int, int]], tmp_path: Path) -> None:
    content = GOOD
    for offset, value in changes:
        content = patched(content, offset, [value], "u1")
    (tmp_path / "scan.nii").write_bytes(content)
    try:
        volume = read_volume(tmp_path / "scan.nii")
    except InputError:
        return
    assert np.isfinite(volume.affine).all()


def test_any_truncation_is_refused(scan: Path) -> None:
    content = scan.read_bytes()
    for length in range(2, len(content)):
        scan.write_bytes(content[:length])
        with pytest.raises(InputError, match="the file ends too early"):
            read_volume(scan)


# Masks


@st.composite
def headers(draw: st.DrawFn) -> nib.Nifti1Header:
    """The header of some scan: any size, spacing, orientation, tilt, with any sform and qform."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 2))
    turned = rotation(*angles) @ np.diag([*spacing, 1]) @ inv_ornt_aff(draw(st.sampled_from(ORIENTATIONS)), shape)
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_qform(turned, code=draw(st.integers(0, 4)))
    header.set_sform(SHEAR @ turned, code=draw(st.integers(0, 4)))
    header.set_data_offset(352)
    header["xyzt_units"] = draw(st.sampled_from([0, 1, 2, 3, 10]))
    return header


@settings(max_examples=100, deadline=None)
@given(header=headers(), suffix=st.sampled_from([".nii", ".nii.gz"]))
def test_a_mask_lies_exactly_on_the_grid_of_its_scan(header: nib.Nifti1Header, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scan, written = Path(folder, "scan.nii"), Path(folder, f"mask{suffix}")
        scan.write_bytes(header.binaryblock + bytes(4 + 2 * math.prod(header.get_data_shape())))
        volume = read_volume(scan)
        write_mask(np.zeros(volume.voxels.shape, np.uint8), volume, written)
        assert nib.load(written).shape == nib.load(scan).shape
        np.testing.assert_array_equal(nib.load(written).affine, nib.load(scan).affine)
        assert geometry(written) == geometry(scan)


@pytest.mark.parametrize("sample", SAMPLE_SCANS)
def test_the_mask_of_a_sample_scan_lies_exactly_on_its_grid(sample: str, tmp_path: Path) -> None:
    path = SAMPLES / sample
    if not path.is_file():
        pytest.skip(f"the sample CT file {sample} is not here")
    volume = read_volume(path)
    write_mask(np.zeros(volume.voxels.shape, np.uint8), volume, tmp_path / "mask.nii.gz")
    assert geometry(tmp_path / "mask.nii.gz") == geometry(path)
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


@pytest.mark.parametrize(("length", "kind"), [(32767, nib.Nifti1Image), (32768, nib.Nifti2Image)])
def test_a_mask_is_nifti_2_only_where_a_side_is_too_long(length: int, kind: type, tmp_path: Path) -> None:
    volume = Volume.from_array(np.zeros((length, 1, 1), np.int16), LPS_AFFINE)
    write_mask(np.zeros((1, 1, length), np.uint8), volume, tmp_path / "mask.nii")
    assert type(nib.load(tmp_path / "mask.nii")) is kind


def test_an_existing_mask_is_kept(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "mask.nii").write_bytes(b"old")
    with pytest.raises(OutputExistsError, match=r"mask\.nii: is already there"):
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
    with pytest.raises(OutputError, match="this is the scan itself"):
        write_mask(LABELS, read_volume(scan), target, overwrite=True)


@pytest.mark.parametrize("name", ["mask", "mask.png", "mask.gz", "mask.nii.zip"])
def test_another_ending_is_refused(name: str, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"let the name end in \.nii or \.nii\.gz"):
        write_mask(LABELS, read_volume(scan), tmp_path / name)


# Labels


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
        (nifti(CUBE + 0.5), "labels must be whole numbers; is it a probability map"),
        (nifti((CUBE + 256).astype("<i2")), "voxels must lie within 0 to 255, found 256 to 256; is it a label file"),
        (nifti((CUBE - 1).astype("<i2")), "voxels must lie within 0 to 255, found -1 to -1; is it a label file"),
        (nifti(LABELS.T[:, :, 1:]), r"\(3, 5, 6\) voxels, the scan has \(4, 5, 6\)"),
        (nifti(LABELS.T, LPS_AFFINE + 0.08 * np.eye(4, k=3)), "lies 0.* mm off the grid of the scan"),
    ],
    ids=["fraction", "too large", "negative", "other shape", "shifted"],
)
def test_unfit_labels_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "labels.nii", content)
    with pytest.raises(InputError, match=message):
        read_mask(path, like=Volume.from_array(ANATOMY.T, LPS_AFFINE))


def test_labels_within_a_tenth_of_a_voxel_are_accepted(tmp_path: Path) -> None:
    path = save(tmp_path / "labels.nii", nifti(LABELS.T, LPS_AFFINE + 0.06 * np.eye(4, k=3)))
    np.testing.assert_array_equal(read_mask(path, like=Volume.from_array(ANATOMY.T, LPS_AFFINE)), LABELS)
