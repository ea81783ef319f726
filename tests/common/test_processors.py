"""Threads are counted by what this process may use, not by what the machine has."""

import os
from pathlib import Path

import pytest

from cascade_rt.common.processors import available_cpus, granted_cpus


def grant(cgroup: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (cgroup / name).parent.mkdir(exist_ok=True)
        (cgroup / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_control_group_grants_processors(tmp_path: Path, files: dict[str, str], granted: float | None) -> None:
    grant(tmp_path, files)
    assert granted_cpus(tmp_path) == granted


def test_the_grant_bounds_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(tmp_path, {"cpu.max": "30000 100000\n"})
    monkeypatch.setattr("cascade_rt.common.processors.CGROUP", tmp_path)
    assert available_cpus() == 1


def test_a_cpu_grant_above_what_exists_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade_rt.common.processors.CGROUP", tmp_path)
    without = available_cpus()
    grant(tmp_path, {"cpu.max": f"{100000 * 10 * (os.cpu_count() or 1)} 100000\n"})
    assert available_cpus() == without
