"""Every file of the corpus through the command line: refused in one sentence with its code, or segmented in place."""

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
from cascade_rt_cli.messages import with_flags
from tests.broken_scans import BROKEN, HU, ODD, ScanFile, every_broken_scan, every_odd_scan
from tests.volume_files import assert_placed_alike

WINDOW = (-100.0, 240.0)


@pytest.fixture(autouse=True)
def engines_without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded bundle, computed by engines that find an organ in everything above 50 HU."""
    engines = Engines(organ_by_hu(50.0, WINDOW), tumor_by_salient(0.75))
    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", lambda *_: engines)


def infer(file: ScanFile, folder: Path) -> tuple[Path, Result]:
    scan = file.write(folder)
    # How files are read, not which pixels a bundle knows: that of the phantoms takes any.
    arguments = ["infer", str(scan), "-o", str(folder / "out"), "--bundle", "phantom", *file.options]
    return scan, CliRunner().invoke(main, arguments, catch_exceptions=False)


def header_of(path: Path) -> Any:
    """The header of a file as it is, nothing mended."""
    content = path.read_bytes()
    content = zlib.decompressobj(31).decompress(content, 1000) if content[:2] == b"\x1f\x8b" else content
    kind = nib.Nifti2Header if b"n+2" in content[:8] else nib.Nifti1Header
    order = "<" if content[0] else ">"
    return kind(content[: kind.sizeof_hdr], order, check=False)


def test_the_corpus_is_as_large_as_we_say() -> None:
    names = [file.name for file in (*BROKEN, *ODD)]
    assert len(BROKEN) >= 80
    assert len(set(names)) == len(names)


@every_broken_scan
def test_a_broken_scan_is_refused_with_its_code_and_leaves_nothing(file: ScanFile, tmp_path: Path) -> None:
    scan, result = infer(file, tmp_path)
    assert (result.exit_code, result.stdout) == (4, ""), result.output
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"cascade-rt: error[{file.code}]: {scan.name}: ")
    assert "; " in sentence, "the remedy stands behind a semicolon"
    assert [path.name for path in tmp_path.iterdir() if path != scan] == []


@every_odd_scan
def test_an_odd_scan_gets_a_mask_on_its_own_grid_and_its_warnings(file: ScanFile, tmp_path: Path) -> None:
    scan, result = infer(file, tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    mask, given = header_of(tmp_path / "out" / "scan_seg.nii.gz"), header_of(scan)
    assert_placed_alike(mask, given)
    report = json.loads((tmp_path / "out" / "scan_seg.json").read_text())
    # Not a matter of the file: whether the networks take what is no CT for a lesion.
    assert {warning["code"] for warning in report["warnings"]} - {"W_LESION_APART"} == file.warnings
    assert all(with_flags(warning["message"]) in result.stdout for warning in report["warnings"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scan_seg.json", "scan_seg.nii.gz"]


@pytest.mark.parametrize("file", [file for file in ODD if file.name.startswith("stored_as") or file.name == "usual"])
def test_the_mask_is_the_same_in_the_world_however_the_scan_is_stored(file: ScanFile, tmp_path: Path) -> None:
    infer(file, tmp_path)
    mask = nib.as_closest_canonical(nib.load(tmp_path / "out" / "scan_seg.nii.gz"))
    found = np.asarray(mask.dataobj)[::-1, ::-1].T
    np.testing.assert_array_equal(found > 0, HU >= 50)
