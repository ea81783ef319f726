"""Hundreds of scans in one process: neither memory nor open files grow."""

import os
import sys
from pathlib import Path

import pytest

from tests.cohort_runs import run, save_scans

MEBIBYTE = 1 << 20
MOST_GROWTH_MB = 8


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux says of the process")
def test_neither_memory_nor_open_files_grow_over_three_hundred_scans(tmp_path: Path) -> None:
    run(save_scans(tmp_path / "few", 30), tmp_path / "warm")
    memory, files = resident_mb(), open_files()
    assert run(save_scans(tmp_path / "many", 300), tmp_path / "out").done == 300
    assert resident_mb() - memory < MOST_GROWTH_MB
    assert open_files() == files
