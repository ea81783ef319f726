"""NRRD and MetaImage, read and written, against SimpleITK."""

import bz2
import gzip
import hashlib
import io
import itertools
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rt.data.case_pairs import check_pairs, pair_cases
from cascade_rt.data.inputs import differences, record_inputs
from cascade_rt.errors import InputError
from cascade_rt.scans.metaimage import parse_metaimage
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.nrrd import parse_nrrd
from cascade_rt.scans.opening import read_volume, record_scan, scan_stamp
from cascade_rt.scans.volume import Volume, read_grid, read_mask, write_mask
from tests.broken_scans import HU
from tests.volume_files import ANATOMY, ORIENTATIONS, WORLDS, Array, in_every_world, oriented

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
pytest.importorskip("nrrd", reason="pynrrd is not installed")

SUFFIXES = ["mha", "mhd", "nrrd", "nhdr"]
RAS = np.diag([-1.0, -1.0, 1.0])
ANYTHING = ScanOptions(assume_hu=True)
INDICES = [(0, 0, 0), (1, 2, 3), (3, 0, 2), (5, 4, 3)]
MHA = "ObjectType = Image\nNDims = 3\nDimSize = 48 40 6\nElementType = MET_{}\nElementSpacing = 0.7 0.8 2.5\n"
MHA += "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nBinaryDataByteOrderMSB = {}\n{}ElementDataFile = LOCAL\n"
NRRD = "NRRD0004\ntype: {}\ndimension: 3\nsizes: 48 40 6\nspace: left-posterior-superior\nendian: {}\nencoding: {}\n"
NRRD += "space directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)\nspace origin: (1,2,3)\n\n"
MHA_TYPES = {
    "MET_SHORT": "i2", "MET_INT": "i4", "MET_LONG": "i4", "MET_LONG_LONG": "i8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
    "MET_USHORT": "u2", "MET_UINT": "u4", "MET_ULONG": "u4", "MET_ULONG_LONG": "u8", "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
}  # fmt: skip
NRRD_TYPES = {
    "short": "i2", "int16": "i2", "int": "i4", "long long int": "i8", "float": "f4", "double": "f8", "ushort": "u2",
    "unsigned int": "u4", "uint64": "u8", "signed char": "i1", "uint8_t": "u1",
}  # fmt: skip


def itk_image(array: Array, affine: Array) -> Any:
    """An image of SimpleITK from `[i, j, k]` and an affine in RAS."""
    image = sitk.GetImageFromArray(array.T)
    lps = RAS @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())
    return image


def saved(path: Path, array: Array, affine: Array, *, compressed: bool = True) -> Any:
    image = itk_image(array, affine)
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return image


def fitting(dtype: str) -> Array:
    """The CT `[k, j, i]` in the range of a type."""
    low, high = (-100, 100) if dtype == "i1" else (0, 200) if dtype[0] == "u" else (-1024, 3071)
    return HU.clip(low, high).astype(dtype)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("world", ["straight", "oblique"])
def test_voxels_lie_where_simpleitk_says(suffix: str, world: str, tmp_path: Path) -> None:
    for number, orientation in enumerate(ORIENTATIONS[::5]):
        array, affine = oriented(orientation, WORLDS[world])
        path = tmp_path / f"{number}.{suffix}"
        image = saved(path, array, affine)
        volume = read_volume(path, ANYTHING)
        np.testing.assert_array_equal(volume.grid.from_canonical(volume.voxels), array)
        for index in itertools.product(*((0, side - 1) for side in array.shape)):
            found = volume.grid.affine @ [*index, 1]
            np.testing.assert_allclose(RAS @ found[:3], image.TransformIndexToPhysicalPoint(index), atol=1e-9)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", MHA_TYPES)
def test_every_type_of_metaimage_is_read_as_by_simpleitk(kind: str, packed: bool, order: str, tmp_path: Path) -> None:
    stored = fitting(MHA_TYPES[kind]).astype(np.dtype(MHA_TYPES[kind]).newbyteorder(order)).tobytes()
    stored = zlib.compress(stored) if packed else stored
    told = f"CompressedData = True\nCompressedDataSize = {len(stored)}\n" if packed else ""
    path = tmp_path / "scan.mha"
    path.write_bytes(MHA.format(kind[4:], order == ">", told).encode() + stored)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    volume = read_volume(path, ANYTHING)
    np.testing.assert_array_equal(volume.grid.from_canonical(volume.voxels).T, expected)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("kind", NRRD_TYPES)
def test_every_type_of_nrrd_is_read(kind: str, encoding: str, order: str, tmp_path: Path) -> None:
    array = fitting(NRRD_TYPES[kind])
    stored = array.astype(array.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()
    pack: Any = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[encoding]
    path = tmp_path / "scan.nrrd"
    path.write_bytes(NRRD.format(kind, order, encoding).encode() + pack(stored))
    volume = read_volume(path, ANYTHING)
    np.testing.assert_array_equal(volume.grid.from_canonical(volume.voxels).T, array)
    if encoding != "bzip2":
        np.testing.assert_array_equal(array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LPS", (-1, -1, 1)),
    ],
)
def test_the_space_of_nrrd_is_heeded(space: str, signs: tuple[int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    header = NRRD.format("short", "little", "raw").replace("left-posterior-superior", space)
    path.write_bytes(header.encode() + HU.tobytes())
    found = read_grid(path)
    affine = np.diag([0.7, 0.8, 2.5, 1])
    affine[:3, 3] = [1, 2, 3]
    expected = Volume.from_array(HU.T, np.diag([*signs, 1]) @ affine).canonical_grid
    np.testing.assert_allclose(found.affine, expected.affine)


@pytest.mark.parametrize("suffix", ["seg.nrrd", "nrrd", "mha", "nii.gz"])
@in_every_world
def test_a_mask_lies_on_its_scan_in_every_format(suffix: str, world: Array, tmp_path: Path) -> None:
    array, affine = oriented(ORIENTATIONS[17], world)
    volume = Volume.from_array(array, affine)
    mask = (np.arange(ANATOMY.size).reshape(ANATOMY.shape) % 3).astype(np.uint8)
    path = tmp_path / f"mask.{suffix}"
    write_mask(mask, volume, path)
    np.testing.assert_array_equal(read_mask(path, like=volume), mask)
    first = path.read_bytes()
    write_mask(mask, volume, path, overwrite=True)
    assert path.read_bytes() == first


@pytest.mark.parametrize("suffix", ["seg.nrrd", "mha"])
def test_simpleitk_reads_a_mask_where_it_reads_the_scan(suffix: str, tmp_path: Path) -> None:
    array, affine = oriented(ORIENTATIONS[30], np.eye(4))
    image = saved(tmp_path / "scan.nrrd", array, affine)
    volume = read_volume(tmp_path / "scan.nrrd", ANYTHING)
    mask = (volume.voxels > 0).astype(np.uint8)
    write_mask(mask, volume, tmp_path / f"mask.{suffix}")
    found = sitk.ReadImage(str(tmp_path / f"mask.{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), (array.T > 0).astype(np.uint8))
    for of in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(found, of)(), getattr(image, of)(), atol=1e-12)


def test_slicer_finds_the_segments_that_the_mask_has(tmp_path: Path) -> None:
    import nrrd

    volume = Volume.from_array(HU.T, np.diag([1.0, 1, 2, 1]))
    on_grid = np.zeros(HU.T.shape, dtype=np.uint8)
    on_grid[10:20, 5:9, 2:4] = 2
    write_mask(np.ascontiguousarray(volume.grid.to_canonical(on_grid)), volume, tmp_path / "a.seg.nrrd")
    stored, fields = nrrd.read(str(tmp_path / "a.seg.nrrd"))
    np.testing.assert_array_equal(stored, on_grid)
    told = {key: fields[f"Segment0_{key}"] for key in ("ID", "Name", "LabelValue", "Extent", "Layer")}
    assert told == {"ID": "tumor", "Name": "tumor", "LabelValue": "2", "Extent": "10 19 5 8 2 3", "Layer": "0"}
    assert "Segment1_ID" not in fields


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_a_detached_scan_is_identified_by_its_header_and_then_its_voxels(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"scan.{suffix}"
    saved(path, HU.T, np.diag([1.0, 1, 2, 1]), compressed=False)
    (voxels,) = (each for each in tmp_path.iterdir() if each != path)
    record = read_volume(path).file
    content = path.read_bytes() + voxels.read_bytes()
    assert record is not None
    assert (record.sha256, record.bytes) == (hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_other_voxels_in_a_detached_file_make_another_input_of_a_store(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"scan.{suffix}"
    saved(path, HU.T, np.diag([1.0, 1, 2, 1]), compressed=False)
    (voxels,) = (each for each in tmp_path.iterdir() if each != path)
    before = record_inputs({"image": path})
    assert differences(before, {}, {"image": path}) == []
    voxels.write_bytes(voxels.read_bytes()[::-1] + b"x")
    assert differences(before, {}, {"image": path}) == [f"a different image from scan.{suffix}"]


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_an_orientation_that_is_missing_can_be_stated(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"scan.{suffix}"
    header = MHA.format("SHORT", False, "") if suffix == "mha" else NRRD.format("short", "little", "raw")
    lines = (line for line in header.splitlines(keepends=True) if not line.startswith(("Tr", "Off", "space:")))
    path.write_bytes("".join(lines).encode() + HU.tobytes())
    with pytest.raises(InputError, match="does not state its orientation") as caught:
        read_volume(path)
    assert caught.value.code == "E_ORIENT"
    volume = read_volume(path, ScanOptions(assume_orientation="RAS"))
    assert ([each.code for each in volume.warnings], volume.grid.assumed_orientation) == (["W_ORIENT"], "RAS")
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.8, 0.7))
    mask = tmp_path / f"mask.{suffix}"
    write_mask((volume.voxels > 50).astype(np.uint8), volume, mask)
    assert not any(each in mask.read_bytes()[:400] for each in (b"TransformMatrix", b"space:", b"Offset"))


def test_one_volume_of_several_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    header = NRRD.format("short", "little", "raw").replace("dimension: 3", "dimension: 4").replace("40 6", "40 6 2")
    path.write_bytes(header.replace("(0,0,2.5)", "(0,0,2.5) none").encode() + HU.tobytes() + HU[::-1].tobytes())
    with pytest.raises(InputError, match="choose one with `volume`"):
        read_volume(path)
    volume = read_volume(path, ScanOptions(volume=1))
    np.testing.assert_array_equal(volume.grid.from_canonical(volume.voxels).T, HU[::-1])


def test_labels_of_another_format_are_those_of_a_nifti_scan(tmp_path: Path) -> None:
    affine = np.diag([-0.75, -0.75, 2, 1])
    nib.Nifti1Image(HU.T, affine).to_filename(tmp_path / "scan.nii.gz")
    labels = (HU.T > 50).astype(np.uint8)
    saved(tmp_path / "labels.nrrd", labels, affine)
    volume = read_volume(tmp_path / "scan.nii.gz")
    found = read_mask(tmp_path / "labels.nrrd", like=volume)
    np.testing.assert_array_equal(found, volume.grid.to_canonical(labels))


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_stamp_and_hash_of_a_scan_cover_its_voxels_in_another_file(tmp_path: Path, suffix: str) -> None:
    scan = tmp_path / f"scan.{suffix}"
    saved(scan, HU.T, np.diag([-0.75, -0.75, 2, 1]), compressed=False)
    assert record_scan(scan) == read_volume(scan, ANYTHING).file
    before = scan_stamp(scan), record_scan(scan)
    (voxels,) = (path for path in tmp_path.iterdir() if path != scan)
    voxels.write_bytes(voxels.read_bytes()[::-1])
    after = scan_stamp(scan), record_scan(scan)
    assert all(old != new for old, new in zip(before, after, strict=True))
    voxels.unlink()
    assert scan_stamp(scan) is None


def test_scans_and_labels_are_paired_whatever_their_formats(tmp_path: Path) -> None:
    affine = np.diag([-0.75, -0.75, 2, 1])
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, names in ((images, ("a.mha", "b_0000.nrrd")), (labels, ("a.seg.nrrd", "b.mhd"))):
        folder.mkdir()
        for name in names:
            saved(folder / name, HU.T if folder is images else (HU.T > 50).astype(np.uint8), affine)
    pairs = pair_cases(images, labels)
    assert [(pair.name, pair.image.name) for pair in pairs] == [("a", "a.mha"), ("b", "b_0000.nrrd")]
    assert check_pairs(pairs).pairs == pairs


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("parse", [parse_metaimage, parse_nrrd])
def test_a_changed_header_is_read_or_refused(parse: Any, data: st.DataObject) -> None:
    whole = MHA.format("SHORT", False, "") if parse is parse_metaimage else NRRD.format("short", "little", "raw")
    lines = whole.splitlines()
    line = data.draw(st.integers(1, len(lines) - 1))
    key = lines[line].partition("=" if parse is parse_metaimage else ":")
    odd = st.sampled_from(
        ["", "none", "nan", "-1", "1e30", "(1,2)", "() ()", "1 2 3 4", '"', "inf inf inf", "9" * 5000]
    )
    lines[line] = "".join(key[:2]) + " " + data.draw(odd | st.text(max_size=12))
    content = "\n".join(lines).encode("utf-8", "replace") + b"\n\n"
    with np.errstate(all="ignore"):
        try:
            length = parse(io.BytesIO(content))[1]
        except RejectedFile:
            return
    assert 0 < length <= len(content)
