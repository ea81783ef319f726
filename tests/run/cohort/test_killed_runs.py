"""A run that is killed at any moment, and resumed, gives what an undisturbed one gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cohort_runs import names, save_scans, without_times

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks")
def test_fifty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    save_scans(tmp_path / "scans", 12)
    (tmp_path / "scans" / "bad.nii.gz").write_bytes(b"")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    script = Path(__file__).with_name("killed_runs.py")
    killed = subprocess.run(
        [sys.executable, script, tmp_path, "20261124", "50"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.stdout == "50 killed, then 3\n", killed.stderr[-2000:]
    assert names(tmp_path / "out") == names(tmp_path / "undisturbed")
    assert without_times(tmp_path / "out") == without_times(tmp_path / "undisturbed")
