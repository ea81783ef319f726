"""DICOM through the command line: the same voxels give the same mask, however they are stored and packed."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt.scans.dicom import find_series
from cascade_rt_cli.main import main
from tests.broken_scans import ct
from tests.dicom_files import BODY, SYNTAXES, axial_slices, stored_as, write_enhanced, write_series, zipped

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
