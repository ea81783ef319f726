"""Each exit code means one thing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import FakeEngine, organ_by_hu, tumor_by_salient
from cascade_rt.errors import BackendUnavailableError
from cascade_rt_cli.main import main
from tests.broken_scans import GOOD

WINDOW = (-100.0, 240.0)


@pytest.fixture(autouse=True)
def engines_without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_engines(*_: object) -> Engines:
        return Engines(organ_by_hu(50.0, WINDOW), tumor_by_salient(0.75))

    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", open_engines)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii"
    path.write_bytes(GOOD)
    return path


def infer(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["infer", *map(str, arguments)])


def code_of(result: Result) -> str:
    """The code in the error that a command ended with."""
    return result.stderr.partition("error[")[2].partition("]")[0]


def test_0_is_a_mask(scan: Path, tmp_path: Path) -> None:
    result = infer(scan, "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")


def test_1_is_a_bug_of_ours_with_its_traceback(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr("cascade_rt.run.cascade.measure", fail)
    result = infer(scan, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_2_is_wrong_usage(scan: Path, tmp_path: Path) -> None:
    assert infer().exit_code == 2
    result = infer(scan, "-o", tmp_path / "out", "--shard", "3/2")
    assert (result.exit_code, code_of(result)) == (2, "E_USAGE")


def test_3_is_a_cohort_some_of_which_failed(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"")
    result = infer(tmp_path, "-o", tmp_path / "out")
    assert (result.exit_code, code_of(result)) == (3, "E_SOME_FAILED")
    assert "bad: failed [E_EMPTY]" in result.stdout
    assert (tmp_path / "out" / "scan_seg.nii.gz").exists()


def test_4_is_bad_input(tmp_path: Path) -> None:
    result = infer(tmp_path / "missing.nii.gz", "-o", tmp_path / "out")
    assert (result.exit_code, code_of(result)) == (4, "E_NOT_FOUND")


def test_5_is_a_bundle_that_is_refused(scan: Path, tmp_path: Path) -> None:
    result = infer(scan, "-o", tmp_path / "out", "--bundle", tmp_path)
    assert (result.exit_code, code_of(result)) == (5, "E_BUNDLE")


def test_6_is_an_output_that_cannot_be_written(scan: Path, tmp_path: Path) -> None:
    result = infer(scan, "-o", scan / "out" / "mask.nii.gz")
    assert (result.exit_code, code_of(result)) == (6, "E_OUTPUT")


def test_7_is_an_engine_that_cannot_run(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise BackendUnavailableError("there is no GPU; take another backend")

    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", refuse)
    result = infer(scan, "-o", tmp_path / "out")
    assert (result.exit_code, code_of(result)) == (7, "E_BACKEND")


def test_7_is_an_engine_that_returns_nan(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_engines(*_: object) -> Engines:
        spoilt = FakeEngine("stage1", lambda inputs: {"organ_prob": np.full_like(inputs["hu"], np.nan)})
        return Engines(spoilt, tumor_by_salient(0.75))

    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", open_engines)
    result = infer(scan, "-o", tmp_path / "out")
    assert (result.exit_code, code_of(result)) == (7, "E_NONFINITE_OUTPUT")


def test_8_is_an_existing_result(scan: Path, tmp_path: Path) -> None:
    infer(scan, "-o", tmp_path / "out")
    result = infer(scan, "-o", tmp_path / "out")
    assert (result.exit_code, code_of(result)) == (8, "E_EXISTS")
    assert infer(scan, "-o", tmp_path / "out", "--overwrite").exit_code == 0


def test_a_mask_that_was_to_be_replaced_and_is_not_is_named(scan: Path, tmp_path: Path) -> None:
    infer(scan, "-o", tmp_path / "out")
    scan.write_bytes(b"")
    result = infer(scan, "-o", tmp_path / "out", "--overwrite")
    assert "scan_seg.nii.gz: is still from an earlier run" in result.stderr


def test_codes_are_in_the_json_as_well(tmp_path: Path) -> None:
    result = infer(tmp_path / "missing.nii.gz", "-o", tmp_path / "out", "--log-format", "json")
    event = json.loads(result.stderr)
    assert (event["event"], event["code"], event["exit_code"]) == ("error", "E_NOT_FOUND", 4)


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_temporary_and_is_the_exit_code(
    number: signal.Signals, expected: int, tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for index in range(200):
        (scans / f"{index:03}.nii").write_bytes(GOOD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "cascade_rt_cli", "infer", str(scans), "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        journal = tmp_path / "out" / "journal.jsonl"
        while process.poll() is None and not (journal.exists() and b'"done"' in journal.read_bytes()):
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
    assert process.returncode == expected
    assert not list(tmp_path.rglob("*.tmp"))
    last = {entry["case"]: entry["status"] for entry in map(json.loads, journal.read_text().splitlines())}
    assert set(last.values()) <= {"done", "interrupted"}
    for case in (case for case, status in last.items() if status == "done"):
        assert (tmp_path / "out" / f"{case}_seg.nii.gz").exists()
