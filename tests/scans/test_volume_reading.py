"""Scans come into the canonical frame from any file or array; bad files are refused with a remedy."""

import gzip
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascade_rt.errors import InputError, UsageError
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import Volume, read_grid
from tests.broken_scans import HU, outside_the_field_of_view, padded_below_air, voxels
from tests.volume_files import (
    ANATOMY,
    GOOD,
    LPS_AFFINE,
    SHEAR,
    Array,
    in_every_orientation,
    in_every_world,
    nifti,
    oriented,
    patched,
    save,
)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return save(tmp_path / "scan.nii.gz", GOOD)


# The canonical frame


@in_every_orientation
@in_every_world
def test_every_orientation_gives_the_same_voxels_and_affine(orientation: Array, world: Array, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(*oriented(orientation, world))))
    np.testing.assert_array_equal(volume.voxels, ANATOMY)
    np.testing.assert_allclose(volume.affine, (world @ LPS_AFFINE)[:, [2, 1, 0, 3]], atol=1e-4)


@in_every_orientation
@in_every_world
def test_the_grid_from_the_header_alone_is_that_of_the_scan(orientation: Array, world: Array, tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", nifti(*oriented(orientation, world)))
    grid, volume = read_grid(path), read_volume(path)
    assert grid.shape == volume.voxels.shape
    assert grid.spacing_mm == volume.spacing_mm
    np.testing.assert_array_equal(grid.affine, volume.affine)


def test_the_grid_is_read_without_the_voxels(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", nifti(np.tile(ANATOMY, (200, 10, 10)).T))
    path.write_bytes(path.read_bytes()[:-100])
    assert read_grid(path).shape == (800, 50, 60)


def test_reading_the_grid_of_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.nii: this is not a NIfTI file"):
        read_grid(save(tmp_path / "scan.nii", b"<html>Please log in</html>"))


def test_the_axes_run_to_superior_posterior_and_left(scan: Path) -> None:
    directions = np.sign(np.round(read_volume(scan).affine[:3, :3], 6))
    np.testing.assert_array_equal(directions, [[0, 0, -1], [0, -1, 0], [1, 0, 0]])


def test_spacing_is_in_the_order_of_the_axes(scan: Path) -> None:
    assert read_volume(scan).spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_the_voxel_volume_of_sheared_axes_is_that_of_the_straight_ones(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(ANATOMY.T, SHEAR @ LPS_AFFINE)))
    assert volume.voxel_volume_ml == pytest.approx(0.7 * 0.8 * 2.5 / 1000)


@pytest.mark.parametrize(("unit", "millimetres"), [("meter", 1e3), ("micron", 1e-3), ("unknown", 1.0)])
def test_the_unit_of_the_header_is_heeded(unit: str, millimetres: float, tmp_path: Path) -> None:
    affine = np.diag([1 / millimetres] * 3 + [1.0]) @ LPS_AFFINE
    image = nib.Nifti1Image(ANATOMY.T, affine)
    image.header.set_xyzt_units(unit)
    volume = read_volume(save(tmp_path / "scan.nii.gz", image.to_bytes()))
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.8, 0.7), rtol=1e-5)


@pytest.mark.parametrize("code", [4, 7, 34, 200])
def test_an_unknown_nifti_unit_is_read_as_millimetres(code: int, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", patched(GOOD, 123, [code], "u1")))
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


@in_every_orientation
def test_voxels_are_contiguous_whatever_the_orientation(orientation: Array, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", nifti(*oriented(orientation, np.eye(4)))))
    assert volume.voxels.flags.c_contiguous


# Arrays


def test_an_array_gives_the_voxels_of_its_file(scan: Path) -> None:
    volume = Volume.from_array(ANATOMY.T, LPS_AFFINE)
    np.testing.assert_array_equal(volume.voxels, read_volume(scan).voxels)


def test_an_int16_array_in_the_usual_orientation_is_not_copied() -> None:
    assert np.shares_memory(Volume.from_array(ANATOMY.T, LPS_AFFINE).voxels, ANATOMY)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (ANATOMY[0], LPS_AFFINE, "a scan has 3 axes"),
        (ANATOMY.astype(bool), LPS_AFFINE, "must be integers or floats"),
        (ANATOMY, np.eye(3), "must be a 4x4 matrix"),
    ],
    ids=["2D", "bool", "3x3 affine"],
)
def test_an_unfit_array_is_refused(array: Array, affine: Array, message: str) -> None:
    with pytest.raises(InputError, match=f"phantom: .*{message}"):
        Volume.from_array(array, affine, name="phantom")


def test_scaled_data_of_a_nibabel_image_equal_those_of_its_file(tmp_path: Path) -> None:
    stored = np.arange(-10, 50, dtype=np.int16).reshape(3, 4, 5)
    path = save(tmp_path / "scan.nii", nifti(stored, slope=100, inter=7))
    image = nib.load(path)
    volume = Volume.from_array(image.dataobj, image.affine)
    np.testing.assert_array_equal(volume.voxels, read_volume(path, ScanOptions(assume_hu=True)).voxels)
    assert volume.voxels.max() == 4907


@pytest.mark.parametrize(
    "make",
    [torch.from_numpy, np.ndarray.tolist, np.ma.masked_array, lambda array: array.astype(">i2"), lambda array: array],
    ids=["tensor", "list", "masked array without a mask", "big endian", "array"],
)
def test_whatever_numpy_takes_for_an_array_is_one(make: Callable[[Array], Any]) -> None:
    np.testing.assert_array_equal(Volume.from_array(make(ANATOMY.T.copy()), LPS_AFFINE).voxels, ANATOMY)


@pytest.mark.parametrize(
    ("array", "affine", "code"),
    [
        (nib.Nifti1Image(ANATOMY.T, LPS_AFFINE), LPS_AFFINE, "E_ARRAY"),
        ("scan.nii.gz", LPS_AFFINE, "E_ARRAY"),
        (None, LPS_AFFINE, "E_ARRAY"),
        ([[1, 2], [3]], LPS_AFFINE, "E_ARRAY"),
        (torch.ones((2, 2, 2), requires_grad=True), LPS_AFFINE, "E_ARRAY"),
        (np.ma.masked_less(ANATOMY.T, 0), LPS_AFFINE, "E_ARRAY"),
        (ANATOMY.T, "RAS", "E_AFFINE"),
        (ANATOMY.T, None, "E_AFFINE"),
        (ANATOMY.T, LPS_AFFINE.T, "E_AFFINE"),
    ],
    ids=["image", "path", "none", "ragged", "gradient", "masked", "axes for affine", "no affine", "transposed affine"],
)
def test_an_invalid_array_or_affine_is_refused_with_a_code(array: Any, affine: Any, code: str) -> None:
    with pytest.raises(InputError, match=r"array: .*; ") as caught:
        Volume.from_array(array, affine)
    assert caught.value.code == code


# What files may look like


@pytest.mark.parametrize("file_name", ["case.nii", "case.nii.gz", "case.NII.GZ"])
def test_the_name_is_that_of_the_file_without_its_ending(file_name: str, scan: Path, tmp_path: Path) -> None:
    scan.rename(tmp_path / file_name)
    assert read_volume(tmp_path / file_name).name == "case"


@pytest.mark.parametrize(("file_name", "content"), [("scan.nii", gzip.compress(GOOD)), ("scan.nii.gz", GOOD)])
def test_compression_is_detected_from_the_content(file_name: str, content: bytes, tmp_path: Path) -> None:
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
    assert read_volume(path, ScanOptions(assume_hu=True)).voxels.ravel().tolist() == expected


# What files may not look like; each kind has its file in `tests/broken_scans.py`


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scan\.nii: the file does not exist; check the path"):
        read_volume(tmp_path / "scan.nii")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a regular file; choose a"):
        read_volume(tmp_path)


def test_a_path_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^scan\.nii: "):
        read_volume("scan.nii")


def test_an_unreadable_file_is_refused(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cascade_rt.scans.nifti.voxel_stream.HashedFile", refuse)
    with pytest.raises(InputError, match=r"the file cannot be read \(Permission denied\); check its permissions"):
        read_volume(scan)


def test_nibabel_prints_nothing_about_a_bad_header(scan: Path, caplog: pytest.LogCaptureFixture) -> None:
    scan.write_bytes(GOOD.replace(b"n+1", b"n+9"))
    with pytest.raises(InputError, match="magic"):
        read_volume(scan)
    assert caplog.records == []


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
        with pytest.raises(InputError, match="the file is truncated"):
            read_volume(scan)


@pytest.mark.parametrize("value", [-99999.0, np.nan])
def test_padding_of_no_meaning_becomes_air(tmp_path: Path, value: float) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(voxels(outside_the_field_of_view(value)))
    inside = outside_the_field_of_view(value) == HU
    assert (read_volume(path).voxels == np.where(inside, HU, -1024)).all()


def test_padding_is_named_with_its_value_and_how_often_it_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(voxels(padded_below_air(HU, -99999)))
    (warning,) = read_volume(path).warnings
    assert warning.message == f"{6 * 40 * 10} voxels, down to -99999, are far below air; they are treated as air"


def test_an_offset_beneath_padding_is_named_in_the_refusal(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(voxels(padded_below_air(HU + 1024, -99999)))
    with pytest.raises(InputError, match=r"far below air, and the others are doubtful .*try `hu_offset=-1024`"):
        read_volume(path)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_padding_of_an_array_becomes_air(dtype: type) -> None:
    volume = Volume.from_array(padded_below_air(HU, -99999).astype(dtype).T, LPS_AFFINE)
    assert volume.voxels.min() == max(HU.min(), -1024)
    assert [warning.code for warning in volume.warnings] == ["W_PADDING"]


@pytest.mark.parametrize(
    ("affine", "code"),
    [
        (LPS_AFFINE @ np.diag([1, 1, 5, 1]), "W_THICK"),
        (LPS_AFFINE @ np.diag([50, 50, 1, 1]), "W_SPACING"),
        (SHEAR @ LPS_AFFINE, "W_SHEAR"),
    ],
)
def test_the_geometry_of_an_array_is_judged_as_that_of_a_file(affine: Array, code: str, tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", patched(nifti(HU, affine), 252, [0], "<i2"))
    expected = [warning for warning in read_volume(path).warnings if warning.code != "W_UNITS"]
    assert code in [warning.code for warning in expected]
    assert list(Volume.from_array(HU, affine).warnings) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voxels": ANATOMY[:2]}, r"have shape \(2, 5, 6\), but the grid has \(4, 5, 6\); make a partial volume"),
        ({"voxels": ANATOMY.astype(np.float32)}, "voxels: have dtype float32; pass int16"),
        ({"voxels": ANATOMY.tolist()}, "voxels: got list; pass an array"),
        ({"affine": np.eye(4)}, "affine: does not match the grid"),
    ],
    ids=["part", "type", "list", "affine"],
)
def test_a_volume_that_does_not_fit_its_grid_cannot_be_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(Volume.from_array(ANATOMY.T, LPS_AFFINE), **changes)
