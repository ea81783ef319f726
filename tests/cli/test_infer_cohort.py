"""A cohort on the command line: what is told, and with which code it ends."""

import errno
import json
import os
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt_cli.main import main
from tests.cohort_runs import save_scan


@pytest.fixture(autouse=True)
def engines_without_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def open_engines(*_: object) -> Engines:
        return Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))

    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", open_engines)
    monkeypatch.chdir(tmp_path)
    save_scan(Path("in", "good.nii.gz"))


def infer(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["infer", "in", "-o", "out", *arguments], catch_exceptions=False)


def test_a_pipe_named_like_a_scan_fails_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in" / "pipe.nii.gz")
    result = infer()
    assert (result.exit_code, "pipe: failed [E_NOT_A_FILE]" in result.stdout) == (3, True)
    assert Path("out", "good_seg.nii.gz").exists()


def test_a_mask_of_an_earlier_run_beside_its_scan_is_not_segmented() -> None:
    CliRunner().invoke(main, ["infer", "in/good.nii.gz", "-o", "in"], catch_exceptions=False)
    assert Path("in", "good_seg.nii.gz").exists()
    assert "1 scans" in infer().stdout


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_file_system_without_locks_is_reported(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    result = infer("--log-format", form)
    sentence = "out: cannot be locked on this file system; make sure that no other run writes to it"
    told = json.loads(result.stderr)["message"] if form == "json" else result.stderr
    assert (result.exit_code, sentence in told) == (0, True)


def test_files_that_are_not_read_are_reported_in_one_line() -> None:
    Path("in", "other.mgz").touch()
    reason = "only NIfTI, NRRD, MetaImage and CT series in DICOM are read"
    assert f"cascade-rt: warning: in: skipped, because {reason}: 1 .mgz file\n" in infer().stderr
    assert "not read" not in infer("--overwrite", "-q").stderr


def test_an_archive_without_a_ct_series_is_reported() -> None:
    with zipfile.ZipFile(Path("in", "packed.zip"), "w") as archive:
        archive.write(Path("in", "good.nii.gz"))
    assert "are read: 1 .zip file\n" in infer().stderr
