"""`cascade-rt export --engine` finds out before the export whether engines can be compiled."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.engines.plans import Plan
from cascade_rt.errors import EngineBuildError
from cascade_rt_cli.export import _compile_engines
from cascade_rt_cli.main import main


def export(tmp_path: Path, *options: str) -> Result:
    # There is no such run, so what fails here failed before it was looked for.
    arguments = ["export", str(tmp_path / "no_run"), "-o", str(tmp_path / "bundle"), *options]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.mark.usefixtures("no_gpu")
def test_tensorrt_without_a_gpu_is_refused(tmp_path: Path) -> None:
    result = export(tmp_path, "--engine", "tensorrt")
    assert result.exit_code == 7
    assert "no NVIDIA driver" in result.stderr


@pytest.mark.parametrize("options", [(), ("--engine", "tensorrt-rtx")])
def test_the_number_of_a_gpu_is_for_tensorrt(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = export(tmp_path, "--device", "1", *options)
    assert result.exit_code == 2
    assert "--device needs --engine tensorrt, which builds for a GPU of this machine" in result.stderr


@pytest.mark.parametrize("options", [(), ("--engine", "tensorrt")])
def test_a_compute_capability_is_for_tensorrt_rtx(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = export(tmp_path, "--compute-capability", "8.9", *options)
    assert result.exit_code == 2
    assert "--compute-capability needs --engine tensorrt-rtx" in result.stderr


def test_an_engine_of_unproven_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    doubtful = Plan(b"a plan", "fp32", "its layers cannot be read")
    monkeypatch.setattr("cascade_rt_cli.export.plans", lambda *_: doubtful)
    with pytest.raises(EngineBuildError, match="its layers cannot be read"):
        _compile_engines(read_bundle(embedded_bundle_path("phantom")), "tensorrt", None, 0, overwrite=False)
