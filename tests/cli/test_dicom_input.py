"""DICOM through the command line: the same voxels give the same mask, however they are stored and packed."""

import json
import os
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.errors import InputError
from cascade_rt.scans.dicom import find_series
from cascade_rt.scans.dicom.headers import read_header
from cascade_rt.scans.dicom.pixels import PixelFile
from cascade_rt.scans.dicom.sources import FileOnDisk
from cascade_rt.scans.opening import read_volume
from cascade_rt_cli.main import main
from tests.broken_scans import ct
from tests.dicom_files import BODY, SYNTAXES, SliceFile, axial_slices, stored_as, write_enhanced, write_series, zipped

HU = ct(0, (6, 40, 48))


@pytest.fixture(autouse=True)
def engines_without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded bundle, computed by engines that find an organ in everything above 50 HU."""
    monkeypatch.setattr(
        "cascade_rt.run.cascade.open_engines",
        lambda *_: Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75)),
    )


def infer(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments), "--bundle", "phantom"], catch_exceptions=False)


def mask_of(scan: Path, out: Path, *options: str) -> bytes:
    result = infer(scan, "-o", out / "mask.nii.gz", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    return (out / "mask.nii.gz").read_bytes()


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("dicom") / "scan", axial_slices(HU, **BODY))


@pytest.fixture
def expected(series: Path, tmp_path: Path) -> bytes:
    """The mask of the same voxels as NIfTI."""
    image = nib.Nifti1Image(HU.T, find_series(series).affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "scan.nii.gz")
    return mask_of(tmp_path / "scan.nii.gz", tmp_path / "expected")


def as_syntax(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_series(folder / "scan", axial_slices(HU, **BODY))
        for path in (folder / "scan").iterdir():
            stored_as(path, SYNTAXES[name])
        return folder / "scan"

    return write


def as_zip(folder: Path) -> Path:
    return zipped(write_series(folder / "files", axial_slices(HU, **BODY), shuffled=True), folder / "scan.zip")


def as_enhanced(*, shared: bool, legacy: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        slices = axial_slices(HU, **BODY)
        return write_enhanced(
            folder / "scan.dcm", [slices[index] for index in (3, 0, 5, 1, 4, 2)], shared=shared, legacy=legacy
        )

    return write


def as_zipped_enhanced(folder: Path) -> Path:
    write_enhanced(folder / "files" / "1.dcm", axial_slices(HU, **BODY))
    return zipped(folder / "files", folder / "scan.zip")


@pytest.mark.parametrize(
    "write",
    [
        *(pytest.param(as_syntax(name), id=name) for name in SYNTAXES),
        pytest.param(as_zip, id="zip"),
        pytest.param(as_enhanced(shared=True), id="enhanced"),
        pytest.param(as_enhanced(shared=False), id="enhanced, per frame"),
        pytest.param(as_enhanced(shared=True, legacy=True), id="converted"),
        pytest.param(as_zipped_enhanced, id="enhanced in a zip"),
    ],
)
def test_the_same_voxels_give_the_same_mask_bytes(
    write: Callable[[Path], Path], expected: bytes, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    assert mask_of(write(tmp_path / "in"), tmp_path / "out") == expected
    assert np.count_nonzero(HU >= 50) > 0


def test_a_series_is_one_scan_without_a_journal(series: Path, tmp_path: Path) -> None:
    result = infer(series, "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scan_seg.json", "scan_seg.nii.gz"]
    report = json.loads((tmp_path / "out" / "scan_seg.json").read_text())
    assert report["case"] == "scan"
    assert report["input"]["bytes"] == sum(path.stat().st_size for path in series.iterdir())


def of_patient(number: int, first_slice: int) -> list[SliceFile]:
    """Slices of a patient whose series has the same UID as those of the others, some slices further up."""
    facts = (("PatientID", f"P{number}"), ("StudyInstanceUID", f"1.2.{number}"))
    return [
        replace(entry, position=(*entry.position[:2], entry.position[2] + 2.5 * first_slice), number=index)
        for index, entry in enumerate(axial_slices(HU, changes=facts, **BODY), start=first_slice)
    ]


def test_two_patients_with_one_series_uid_are_not_read_as_one_scan(tmp_path: Path) -> None:
    write_series(tmp_path / "scans" / "a", of_patient(1, 0))
    write_series(tmp_path / "scans" / "b", of_patient(2, 6))
    with pytest.raises(InputError, match="2 studies or patients") as caught:
        read_volume(tmp_path / "scans")
    assert caught.value.code == "E_SLICES_DIFFER"


def test_two_patients_with_one_series_uid_are_two_cases(tmp_path: Path) -> None:
    write_series(tmp_path / "scans" / "a", of_patient(1, 0))
    write_series(tmp_path / "scans" / "b", of_patient(2, 6))
    assert infer(tmp_path / "scans", "-o", tmp_path / "out").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {"a_seg.nii.gz", "b_seg.nii.gz"}


def in_12_bits(stored: npt.NDArray[Any], high_bit: int = 11, **elements: Any) -> list[SliceFile]:
    """Slices of the stored values `[z, row, col]`."""
    facts = {"BitsStored": 12, "HighBit": high_bit, **elements}
    return [
        replace(entry, changes=(*facts.items(), ("PixelData", image.astype("<u2").tobytes())))
        for entry, image in zip(axial_slices(HU, **BODY), stored, strict=True)
    ]


def test_padding_in_bits_that_pixels_do_not_have_is_air(tmp_path: Path) -> None:
    """Read with the lowest 12 bits alone, -2000 would be bone."""
    stored = HU + 1024
    stored[:, :5] = -2000
    volume = read_volume(write_series(tmp_path, in_12_bits(stored, PixelPaddingValue=65536 - 2000)))
    assert (volume.voxels[:, :5] == -1024).all()
    assert np.array_equal(volume.voxels[:, 5:], HU[:, 5:])


def test_pixels_in_the_upper_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bits up to 15") as caught:
        read_volume(write_series(tmp_path, in_12_bits((HU + 1024) << 4, high_bit=15)))
    assert caught.value.code == "E_DTYPE"


def test_a_file_far_longer_than_its_pixels_is_not_read(tmp_path: Path) -> None:
    write_series(tmp_path, axial_slices(HU, **BODY))
    os.truncate(tmp_path / "1-003.dcm", 1 << 30)
    with pytest.raises(InputError, match="far more than its pixels need") as caught:
        read_volume(tmp_path)
    assert caught.value.code == "E_SIZE_LIE"


def test_what_inflates_to_far_more_than_the_pixels_takes_little_memory(tmp_path: Path) -> None:
    path = stored_as(axial_slices(HU, **BODY)[0].write(tmp_path / "1.dcm"), SYNTAXES["deflated"])
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packing.compress(zlib.decompress(content[start:], -15))
    packed += b"".join(packing.compress(bytes(32 << 20)) for _ in range(8))
    path.write_bytes(content[:start] + packed + packing.flush())
    tracemalloc.start()
    try:
        PixelFile(read_header(FileOnDisk(path))).frame(0)
        assert tracemalloc.get_traced_memory()[1] < 240 << 20
    finally:
        tracemalloc.stop()


def test_hidden_folders_are_not_of_the_scan(tmp_path: Path) -> None:
    write_series(tmp_path / ".snapshot", axial_slices(HU, series="1.2.9", **BODY))
    volume = read_volume(write_series(tmp_path, axial_slices(HU, **BODY)))
    assert np.array_equal(volume.voxels, HU)


def test_a_study_is_one_scan_also_with_results_of_an_earlier_run_in_it(tmp_path: Path) -> None:
    study = write_series(tmp_path / "study", axial_slices(HU, changes=(("SeriesNumber", 3),), **BODY))
    for _ in range(2):
        result = infer(study, "-o", study / "out", "--series", "3", "--save-probabilities", "--overwrite")
        assert (result.exit_code, result.stderr) == (0, "")
    assert not (study / "out" / "journal.jsonl").exists()
