"""NRRD and MetaImage through the command line: broken files are refused, good ones give what NIfTI gives."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt_cli.main import main
from tests.broken_scans import HTML, HU

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
pytest.importorskip("nrrd", reason="pynrrd is not installed")

RAW = HU.tobytes()
MHA = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 0.75 0.75 2\nDimSize = 48 40 6\n"
    "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 48 40 6\n"
    "space directions: (0.75,0,0) (0,0.75,0) (0,0,2)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
    "space origin: (0,0,0)\n\n"
)
AFFINE = np.diag([-0.75, -0.75, 2, 1])


@pytest.fixture(autouse=True)
def engines_without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded bundle, computed by engines that find an organ in everything above 50 HU."""

    def open_engines(*_: object) -> Engines:
        return Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))

    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", open_engines)


def infer(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments), "--bundle", "phantom"], catch_exceptions=False)


def mha(*changes: tuple[str, str], voxels: bytes = RAW) -> bytes:
    return changed(MHA, changes) + voxels


def nrrd(*changes: tuple[str, str], voxels: bytes = RAW) -> bytes:
    return changed(NRRD, changes) + voxels


def changed(header: str, changes: tuple[tuple[str, str], ...]) -> bytes:
    for old, new in changes:
        assert old in header
        header = header.replace(old, new)
    return header.encode()


PACKED_MHA = (("CompressedData = False", f"CompressedData = True\nCompressedDataSize = {len(zlib.compress(RAW))}"),)
PACKED_NRRD = (("encoding: raw", "encoding: gzip"),)
LOCAL = "ElementDataFile = LOCAL"
FLIPPED = bytearray(zlib.compress(RAW))
FLIPPED[len(FLIPPED) // 2] ^= 16

BROKEN: dict[str, tuple[str, str, bytes]] = {
    # A name: file name, code, content
    "mha_empty": ("a.mha", "E_EMPTY", b""),
    "nrrd_empty": ("a.nrrd", "E_EMPTY", b""),
    "mha_web_page": ("a.mha", "E_NOT_METAIMAGE", HTML),
    "nrrd_web_page": ("a.nrrd", "E_NOT_NRRD", HTML),
    "mha_named_nrrd": ("a.nrrd", "E_NOT_NRRD", mha()),
    "nrrd_named_mha": ("a.mha", "E_NOT_METAIMAGE", nrrd()),
    "nrrd_named_nii": ("a.nii", "E_NOT_NIFTI", nrrd()),
    "mha_mesh": ("a.mha", "E_NOT_METAIMAGE", mha(("ObjectType = Image", "ObjectType = Mesh"))),
    "mha_cut_in_header": ("a.mha", "E_HEADER", mha()[:150]),
    "nrrd_cut_in_header": ("a.nrrd", "E_TRUNCATED", nrrd()[:225]),
    "mha_cut_in_half": ("a.mha", "E_TRUNCATED", mha()[:-10_000]),
    "nrrd_cut_in_half": ("a.nrrd", "E_TRUNCATED", nrrd()[:-10_000]),
    "mha_packed_and_cut": ("a.mha", "E_TRUNCATED", mha(*PACKED_MHA, voxels=zlib.compress(RAW)[:-300])),
    "nrrd_packed_and_cut": ("a.nrrd", "E_TRUNCATED", nrrd(*PACKED_NRRD, voxels=gzip.compress(RAW)[:-300])),
    "mha_packed_and_damaged": ("a.mha", "E_CORRUPT", mha(*PACKED_MHA, voxels=bytes(FLIPPED))),
    "nrrd_damaged_bzip2": (
        "a.nrrd",
        "E_CORRUPT",
        nrrd(("encoding: raw", "encoding: bzip2"), voxels=b"BZh9" + bytes(30_000)),
    ),
    "mha_size_lie": ("a.mha", "E_SIZE_LIE", mha(*PACKED_MHA, ("48 40 6", "480 4000 60"), voxels=zlib.compress(RAW))),
    "nrrd_too_large": ("a.nrrd", "E_TOO_LARGE", nrrd(("48 40 6", "90000 90000 9000"))),
    "mha_too_large": ("a.mha", "E_TOO_LARGE", mha(("48 40 6", "90000 90000 9000"))),
    "mha_trailing": ("a.mha", "E_TRAILING", mha(voxels=RAW + bytes(2 << 20))),
    "nrrd_trailing": ("a.nrrd", "E_TRAILING", nrrd(voxels=RAW + bytes(2 << 20))),
    "mha_2d": (
        "a.mha",
        "E_NDIM",
        b"NDims = 2\nDimSize = 48 240\nElementType = MET_SHORT\n" + LOCAL.encode() + b"\n" + RAW,
    ),
    "nrrd_2d": (
        "a.nrrd",
        "E_NDIM",
        b"NRRD0001\ntype: short\ndimension: 2\nsizes: 48 240\nendian: little\nencoding: raw\n\n" + RAW,
    ),
    "mha_channels": ("a.mha", "E_CHANNELS", mha(("MET_SHORT", "MET_UCHAR\nElementNumberOfChannels = 2"))),
    "nrrd_channels": (
        "a.nrrd",
        "E_CHANNELS",
        nrrd(
            ("short", "uchar"),
            ("dimension: 3", "dimension: 4"),
            ("48 40 6", "2 48 40 6"),
            ("(0.75,0,0)", "none (0.75,0,0)"),
            ("kinds: domain", "kinds: vector domain"),
        ),
    ),
    "mha_of_no_size": ("a.mha", "E_DIMS", mha(("48 40 6", "48 0 6"))),
    "nrrd_of_negative_size": ("a.nrrd", "E_DIMS", nrrd(("48 40 6", "48 -40 6"))),
    "mha_type_unknown": ("a.mha", "E_DTYPE", mha(("MET_SHORT", "MET_SHORT_ARRAY"))),
    "nrrd_block": ("a.nrrd", "E_DTYPE", nrrd(("type: short", "type: block"))),
    "nrrd_without_endian": ("a.nrrd", "E_HEADER", nrrd(("endian: little\n", ""))),
    "mha_of_text": ("a.mha", "E_ENCODING", mha(("BinaryData = True", "BinaryData = False"))),
    "nrrd_of_text": ("a.nrrd", "E_ENCODING", nrrd(("encoding: raw", "encoding: ascii"))),
    "mha_scaled": ("a.mha", "E_SLOPE", mha(("NDims = 3", "NDims = 3\nElementToIntensityFunctionSlope = 2"))),
    "mha_without_orientation": ("a.mha", "E_ORIENT", mha(("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", ""))),
    "nrrd_without_space": ("a.nrrd", "E_ORIENT", nrrd(("space: left-posterior-superior\n", ""))),
    "nrrd_scanner_xyz": ("a.nrrd", "E_ORIENT", nrrd(("left-posterior-superior", "scanner-xyz"))),
    "mha_singular": ("a.mha", "E_AFFINE", mha(("1 0 0 0 1 0 0 0 1", "1 0 0 1 0 0 0 0 1"))),
    "nrrd_singular": ("a.nrrd", "E_AFFINE", nrrd(("(0,0.75,0)", "(0,0,0)"))),
    "mha_without_spacing": ("a.mha", "E_SPACING", mha(("ElementSpacing = 0.75 0.75 2\n", ""))),
    "mha_spacing_0": ("a.mha", "E_SPACING", mha(("0.75 0.75 2", "0.75 0.75 0"))),
    "mha_number_of_letters": ("a.mha", "E_HEADER", mha(("Offset = 0 0 0", "Offset = Doe Jane 0"))),
    "nrrd_number_of_letters": ("a.nrrd", "E_HEADER", nrrd(("(0,0,0)", "(Doe,Jane,0)"))),
    "nrrd_in_metres": ("a.nrrd", "E_UNITS", nrrd(("endian", 'space units: "m" "m" "m"\nendian'))),
    "nrrd_skip": ("a.nrrd", "E_OFFSET", nrrd(("endian", "byte skip: 10\nendian"))),
    "mha_header_size": ("a.mha", "E_OFFSET", mha(("NDims = 3", "NDims = 3\nHeaderSize = 100"))),
    "mhd_outside": ("a.mhd", "E_DETACHED", mha((LOCAL, "ElementDataFile = ../Doe_Jane.raw"), voxels=b"")),
    "nhdr_outside": ("a.nhdr", "E_DETACHED", nrrd(("\n\n", "\ndata file: /etc/Doe_Jane\n"), voxels=b"")),
    "mhd_list": ("a.mhd", "E_DETACHED", mha((LOCAL, "ElementDataFile = LIST\nDoe_Jane_1.raw"), voxels=b"")),
    "nhdr_list": ("a.nhdr", "E_DETACHED", nrrd(("\n\n", "\ndata file: LIST\nDoe_Jane_1.raw\n"), voxels=b"")),
    "nhdr_pattern": ("a.nhdr", "E_DETACHED", nrrd(("\n\n", "\ndata file: Doe_Jane_%03d.raw 1 6 1\n"), voxels=b"")),
    "mhd_missing": ("a.mhd", "E_NOT_FOUND", mha((LOCAL, "ElementDataFile = Doe_Jane.raw"), voxels=b"")),
    "mha_not_hu": ("a.mha", "E_NOT_HU", mha(voxels=(HU.clip(-100, 100) // 2 + 60).clip(0).astype("<i2").tobytes())),
    "header_without_end": ("a.mha", "E_HEADER", mha(("NDims = 3", "NDims = 3\nComment = " + "x" * (1 << 20)))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_code_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    file_name, code, content = BROKEN[name]
    (tmp_path / file_name).write_bytes(content)
    result = infer(tmp_path / file_name, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (4, ""), result.output
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"cascade-rt: error[{code}]: {file_name}: ")
    assert "; " in sentence, "the remedy stands behind a semicolon"
    assert "Doe" not in sentence
    assert [path.name for path in tmp_path.iterdir()] == [file_name]


def write_in_every_format(folder: Path) -> None:
    nifti = nib.Nifti1Image(HU.T, AFFINE)
    nifti.header.set_xyzt_units("mm")
    nifti.to_filename(folder / "nifti.nii.gz")
    image = sitk.GetImageFromArray(HU)
    image.SetSpacing((0.75, 0.75, 2))
    for suffix in ("mha", "mhd", "nrrd", "nhdr"):
        sitk.WriteImage(image, str(folder / f"{suffix}.{suffix}"), useCompression=suffix in {"mha", "nrrd"})


def told(path: Path) -> Any:
    """What a report says of the scan and the result, and not of the files, the time and the machine."""
    report = json.loads(path.read_text())
    other = ("case", "input", "output", "timings_s", "wall_s", "provenance")
    return {key: value for key, value in report.items() if key not in other}


def test_the_same_scan_gives_the_same_mask_and_report_in_every_format(tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    write_in_every_format(scans)
    assert infer(scans, "-o", out).exit_code == 0
    masks = {"mha": "mha_seg.mha", "mhd": "mhd_seg.mha", "nrrd": "nrrd.seg.nrrd", "nhdr": "nhdr.seg.nrrd"}
    expected = sitk.ReadImage(str(out / "nifti_seg.nii.gz"))
    for name, mask in masks.items():
        found = sitk.ReadImage(str(out / mask))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
        np.testing.assert_allclose(found.GetOrigin(), expected.GetOrigin(), atol=1e-6)
        assert told(out / f"{name}_seg.json") == told(out / "nifti_seg.json")
    assert sitk.GetArrayFromImage(expected).any()


def test_the_name_of_the_mask_decides_its_format(tmp_path: Path) -> None:
    write_in_every_format(tmp_path)
    assert infer(tmp_path / "mha.mha", "-o", tmp_path / "mask.nii.gz").exit_code == 0
    assert infer(tmp_path / "nifti.nii.gz", "-o", tmp_path / "mask.seg.nrrd").exit_code == 0
    of_mha, of_nifti = (sitk.ReadImage(str(tmp_path / name)) for name in ("mask.nii.gz", "mask.seg.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(of_mha), sitk.GetArrayFromImage(of_nifti))
    assert {"mask.json", "mask_seg.json"} <= {path.name for path in tmp_path.iterdir()}


def test_masks_beside_their_reports_are_no_scans(tmp_path: Path) -> None:
    write_in_every_format(tmp_path)
    for name in ("mha.mha", "nrrd.nrrd"):
        assert infer(tmp_path / name, "-o", tmp_path / f"{Path(name).stem}_seg.mha").exit_code == 0
    assert infer(tmp_path / "nhdr.nhdr", "-o", tmp_path / "nhdr.seg.nrrd").exit_code == 0
    result = infer(tmp_path, "-o", tmp_path / "out")
    assert (result.exit_code, "skipped" in result.stderr) == (0, False)
    assert len(list((tmp_path / "out").glob("*_seg.json"))) == 5


def test_segmentations_of_others_are_counted_and_not_segmented(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    write_in_every_format(scans)
    (scans / "theirs.seg.nrrd").write_bytes(nrrd())
    result = infer(scans, "-o", tmp_path / "out")
    assert (result.exit_code, "1 .seg.nrrd file" in result.stderr) == (0, True)
    assert not list((tmp_path / "out").glob("theirs*"))


def test_without_its_package_nrrd_is_refused_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "a.nrrd").write_bytes(nrrd())
    monkeypatch.setitem(sys.modules, "nrrd", None)
    result = infer(tmp_path / "a.nrrd", "-o", tmp_path / "out")
    assert (result.exit_code, "pip install 'pynrrd>=1.1'" in result.stderr) == (7, True)
