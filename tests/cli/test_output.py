"""How much is said: the log with -v, nothing but errors with -q."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt_cli.main import COMMANDS, main

TINY = ("--base-width", 8, "--cases", 1, "--shape", 16, 64, 64, "--variant", "u")


def cascade_rt(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Jane_Doe_19551224")
    write_phantom_files(make_phantom(5, (4, 64, 64)), folder / "scan.nii.gz", folder / "label.nii.gz")
    return folder / "scan.nii.gz"


def infer(scan: Path, output: Path, *options: str) -> Result:
    return cascade_rt(*options, "infer", scan, "--bundle", "phantom", "-o", output, "--backend", "onnxruntime")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_both_flags_after_its_name(command: str) -> None:
    text = cascade_rt(command, "--help").output
    assert re.search(r"-v, --verbose", text)
    assert re.search(r"-q, --quiet", text)


def test_the_log_says_which_file_is_read_and_which_engine_opened(scan: Path, tmp_path: Path) -> None:
    lines = infer(scan, tmp_path, "-v").stderr.splitlines()
    assert any(line.endswith("INFO cascade_rt.scans.opening: reading scan.nii.gz") for line in lines)
    opened = re.compile(r"INFO cascade_rt\.engines: opened \S*phantom_bundle on onnxruntime .* in fp32")
    assert any(opened.search(line) for line in lines)


def test_the_log_on_the_console_shows_no_folders_of_patients(scan: Path, tmp_path: Path) -> None:
    assert "Jane_Doe" not in infer(scan, tmp_path, "-v").stderr
    assert "Jane_Doe" in infer(scan, tmp_path / "again", "-v", "--log-paths").stderr


def test_the_log_of_programs_is_json(scan: Path, tmp_path: Path) -> None:
    options = ("-v", "--log-format", "json", "--bundle", "phantom", "--backend", "onnxruntime")
    result = cascade_rt("infer", scan, *options, "-o", tmp_path)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert {
        "event": "log",
        "level": "INFO",
        "logger": "cascade_rt.scans.opening",
        "message": "reading scan.nii.gz",
    } in events


def test_what_workers_log_reaches_the_console_without_folders(scan: Path, tmp_path: Path) -> None:
    options = ("-v", "--workers", 1, "--bundle", "phantom", "--backend", "onnxruntime")
    lines = cascade_rt("infer", scan.parent, *options, "-o", tmp_path).stderr.splitlines()
    assert any(line.endswith("INFO cascade_rt.scans.opening: reading scan.nii.gz") for line in lines)
    assert not any("Jane_Doe" in line for line in lines)


def test_without_a_flag_nothing_is_logged_and_afterwards_neither(scan: Path, tmp_path: Path) -> None:
    infer(scan, tmp_path, "-v")
    assert "INFO" not in infer(scan, tmp_path / "again").stderr
    assert [type(handler) for handler in logging.getLogger("cascade_rt").handlers] == [logging.NullHandler]


def test_quiet_leaves_the_results_in_their_files_alone(scan: Path, tmp_path: Path) -> None:
    result = infer(scan, tmp_path, "-q")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "scan_seg.nii.gz").is_file()


def test_quiet_leaves_errors(tmp_path: Path) -> None:
    result = cascade_rt("infer", "-q", tmp_path / "nowhere.nii.gz")
    assert result.exit_code == 4
    assert result.output.startswith("cascade-rt: error[")


@pytest.mark.parametrize("arguments", [("-v", "-q", "doctor"), ("-q", "doctor", "-v")])
def test_both_flags_at_once_are_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = cascade_rt(*arguments)
    assert (result.exit_code, "-v and -q contradict each other" in result.stderr) == (2, True)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return cascade_rt("train", "-o", tmp_path_factory.mktemp("training") / "run", *TINY, "--epochs", 1, 0, 0)


@pytest.mark.parametrize(
    "what",
    [
        r"training on synthetic phantoms, seeds 0 to 0, 16 x 64 x 64 voxels\n",
        r"on (cpu \(threads: \d+\)|.*NVIDIA.*) in bfloat16 where that is safe, 1 cases with \d+ slices, 0 held out",
        r"1 epochs, \d+ iterations; [\d,]+ parameters, 0 in stage 1 and [\d,]+ in stage 2\n",
    ],
)
def test_training_begins_with_what_it_is(training: Result, what: str) -> None:
    assert re.search(what, training.stderr), training.stderr


def test_terminated_training_says_how_to_resume(tmp_path: Path) -> None:
    arguments = ("train", "-o", tmp_path / "run", *TINY, "--epochs", 10_000, 0, 0)
    command = [sys.executable, "-m", "cascade_rt_cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("epoch 1 S")
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 143
    assert "run: training was stopped; to continue, run the same command with --resume" in said
