"""Every study of the corpus through the command line: refused in one sentence with its code, or segmented."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt_cli.main import main
from tests.broken_dicom import BROKEN, ODD, WORDS, Study, every_broken_study, every_odd_study
from tests.broken_scans import HU


@pytest.fixture(autouse=True)
def engines_without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded bundle, computed by engines that find an organ in everything above 50 HU."""
    engines = Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))
    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", lambda *_: engines)


def infer(study: Study, folder: Path) -> tuple[Path, Result]:
    scan = study.write(folder)
    arguments = ["infer", str(scan), "-o", str(folder / "out"), "--bundle", "phantom", *study.options]
    return scan, CliRunner().invoke(main, arguments, catch_exceptions=False)


def words_in(text: str) -> list[str]:
    return [word for word in WORDS if word in text]


def test_the_corpus_is_as_large_as_we_say() -> None:
    names = [study.name for study in (*BROKEN, *ODD)]
    assert len(BROKEN) >= 60
    assert len(set(names)) == len(names)


@every_broken_study
def test_a_broken_study_is_refused_with_its_code_and_leaves_nothing(study: Study, tmp_path: Path) -> None:
    scan, result = infer(study, tmp_path)
    assert (result.exit_code, result.stdout) == (4, ""), result.output
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"cascade-rt: error[{study.code}]: {scan.name}")
    assert "; " in sentence, "the remedy stands behind a semicolon"
    assert words_in(result.stderr) == []
    assert not (tmp_path / "out").exists()


@every_odd_study
def test_an_odd_study_gets_its_mask_and_its_warnings(study: Study, tmp_path: Path) -> None:
    _, result = infer(study, tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    text = (tmp_path / "out" / "scan_seg.json").read_text()
    assert {warning["code"] for warning in json.loads(text)["warnings"]} - {"W_LESION_APART"} == study.warnings
    assert words_in(text + result.stdout) == []
    mask = nib.as_closest_canonical(nib.load(tmp_path / "out" / "scan_seg.nii.gz"))
    found = np.asarray(mask.dataobj)[::-1, ::-1].T
    if study.has_same_mask:
        np.testing.assert_array_equal(found > 0, HU >= 50)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scan_seg.json", "scan_seg.nii.gz"]
