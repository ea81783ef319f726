"""Without a compiler there is no emulated GPU, which is one sentence and no failure of `make test`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.cuda_emulator.build", str(folder), *arguments]
    environment = os.environ | {"PATH": ""}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_tests_are_skipped_with_the_reason(tmp_path: Path) -> None:
    done = build(tmp_path / "gpu", "--run", "-m", "pytest")
    assert done.returncode == 0
    assert done.stdout.startswith("skipped: the tests that need a GPU")
    assert "gcc" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not (tmp_path / "gpu").exists()


@pytest.mark.parametrize("missing", ["gcc", "g++"])
def test_whoever_asks_for_the_environment_is_told_what_is_missing(tmp_path: Path, missing: str) -> None:
    done = build(tmp_path / "gpu")
    assert done.returncode == 1
    assert missing in done.stderr
