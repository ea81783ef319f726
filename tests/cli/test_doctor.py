"""`cascade-rt doctor` on this machine as it is, and on ones that lack something."""

import json
import platform
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascade_rt_cli.main import main
from tests.hidden_packages import hide


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], catch_exceptions=False)


@pytest.mark.usefixtures("no_gpu")
def test_it_says_what_works_what_does_not_and_what_auto_takes() -> None:
    result = doctor()
    assert result.exit_code == 0
    assert "onnxruntime          works: on the CPU" in result.stdout
    assert "tensorrt             no: needs an NVIDIA GPU, but none was found" in result.stdout
    assert "NVIDIA GPU           none: this machine has no NVIDIA driver" in result.stdout
    assert "openvino             works: on the CPU" in result.stdout
    assert "--backend auto uses openvino" in result.stdout


@pytest.mark.usefixtures("no_gpu")
def test_for_machines_it_says_the_same_as_json() -> None:
    diagnosis = json.loads(doctor("--json").stdout)
    assert diagnosis["versions"]["Python"] == platform.python_version()
    assert diagnosis["best"] == "openvino"
    assert diagnosis["gpu"] is None
    assert [finding["works"] for finding in diagnosis["backends"]] == [False, False, True, True, True]


@pytest.mark.usefixtures("no_gpu")
def test_doctor_exits_with_7_and_advice_if_no_engine_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide(monkeypatch, "openvino", "onnxruntime", "torch")
    result = doctor()
    assert result.exit_code == 7
    assert "to fix it: pip install 'onnxruntime>=1.27'" in result.stdout
    assert "no engine runs the embedded bundle here" in result.stderr


def test_a_broken_package_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = [name for name in sys.modules if name.partition(".")[0] == "tensorrt_rtx"]
    for name in hidden:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "tensorrt_rtx.py").write_text("import ctypes\nctypes.CDLL('libnobody_has.so.1')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = doctor()
    assert "tensorrt-rtx         no: it is installed but broken: libnobody_has.so.1" in result.stdout
    assert "to fix it: pip install --force-reinstall 'tensorrt-rtx-cu13>=1.7'" in result.stdout


@pytest.mark.usefixtures("an_old_driver")
def test_a_driver_that_is_too_old_is_told_with_its_version() -> None:
    lines = doctor().stdout.splitlines()
    driver = next(number for number, line in enumerate(lines) if line.startswith("  NVIDIA driver"))
    assert lines[driver].endswith("550.54.14, runs CUDA up to 12.4")
    assert lines[driver + 1].strip().startswith("too old: the NVIDIA driver 550.54.14 runs CUDA up to 12.4")
