"""The doctor says what works, and makes a sentence of what does not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascade_rt.engines.doctor import Finding, examine
from cascade_rt.engines.nvidia import find_gpu
from cascade_rt.engines.smoke_tests import TRIALS, Trial, check_sums
from cascade_rt.errors import BackendUnavailableError, EngineError
from tests.cuda_emulator.driver import Emulator


def fail(error: Exception) -> Callable[[], str]:
    def run() -> str:
        raise error

    return run


def first_trial(run: Callable[[], str]) -> list[Trial]:
    """All trials, quick ones, the first of them with another way to run."""
    quick = [replace(trial, run=lambda: "works") for trial in TRIALS]
    return [replace(quick[0], run=run), *quick[1:]]


@pytest.mark.parametrize(
    ("error", "text", "fix"),
    [
        (BackendUnavailableError("it is not installed; run: pip install it"), "it is not installed", "pip install it"),
        (EngineError("it computes wrongly"), "it computes wrongly", ""),
        (
            OSError("libnvinfer.so.11: cannot open\nshared object file"),
            "it is installed but broken: libnvinfer.so.11: cannot open shared object file",
            "pip install --force-reinstall 'onnxruntime>=1.27'",
        ),
        (
            ModuleNotFoundError("No module named 'tensorrt_libs'"),
            "it is installed but broken: No module named 'tensorrt_libs'",
            "pip install --force-reinstall 'onnxruntime>=1.27'",
        ),
    ],
)
def test_each_problem_is_one_sentence_and_the_command_to_fix_it(error: Exception, text: str, fix: str) -> None:
    assert examine(trials=first_trial(fail(error))).libraries[0] == Finding("onnxruntime", False, text, fix)


def test_a_bug_of_ours_is_not_hidden() -> None:
    with pytest.raises(KeyError, match="our own"):
        examine(trials=first_trial(fail(KeyError("our own"))))


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_nothing_that_needs_one_is_tried() -> None:
    trials = [replace(trial, run=fail(AssertionError("tried"))) if trial.needs_gpu else trial for trial in TRIALS]
    findings = {finding.name: finding for finding in examine(trials=trials).libraries}
    assert findings["tensorrt"] == Finding("tensorrt", False, "needs an NVIDIA GPU, but none was found")


@pytest.mark.usefixtures("an_old_driver")
@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"])
def test_an_old_driver_is_named_before_any_package(name: str) -> None:
    (finding,) = (finding for finding in examine().libraries if finding.name == name)
    assert "the NVIDIA driver 550.54.14 runs CUDA up to 12.4" in finding.text
    assert finding.fix == ""


@pytest.mark.gpu
def test_tensorrt_works_with_cuda_graphs_and_leaves_nothing(emulator: Emulator) -> None:
    (trial,) = (trial for trial in TRIALS if trial.name == "tensorrt")
    assert trial.run() == f"on {find_gpu().name}, CUDA graphs on"
    assert (emulator.since("graph_launches"), emulator.left_behind()) == (2, {})


def distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.usefixtures("a_gpu")
def test_two_packages_with_the_same_files_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "onnxruntime", "1.32.0")
    distribution(tmp_path, "onnxruntime-gpu", "1.31.1")
    monkeypatch.syspath_prepend(tmp_path)
    (clash,) = examine(trials=first_trial(lambda: "works")).clashes
    assert clash.text.startswith("onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed")
    assert clash.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda")


def test_a_library_that_computes_wrongly_does_not_pass() -> None:
    with pytest.raises(EngineError, match="computes a convolution incorrectly"):
        check_sums(np.full((1, 1, 8, 8), 9, np.float32))


@pytest.mark.gpu
@pytest.mark.parametrize("name", [trial.name for trial in TRIALS if trial.needs_gpu])
def test_a_library_for_gpus_works_or_says_how_to_mend_it(name: str) -> None:
    (finding,) = (finding for finding in examine().libraries if finding.name == name)
    assert finding.works or finding.fix or "built for TensorRT" in finding.text
