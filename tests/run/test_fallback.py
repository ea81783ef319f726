"""Where memory runs out, batches are halved, the masks stay the same, and the fallback level is recorded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascade_rt.engines import EngineRequest, Engines
from cascade_rt.engines.fallbacks import attempts
from cascade_rt.errors import (
    BackendUnavailableError,
    CascadeError,
    EngineBuildError,
    EngineError,
    EngineOutOfMemoryError,
    OutputError,
)
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.cohort.cases import plan_cases
from cascade_rt.run.inference import infer_files
from tests.cohort_files import fake_cascade
from tests.cohort_runs import hungry, save_scan, with_fallbacks


def segment(folder: Path, largest: int, tried: list[int] | None = None) -> Segmentation | Exception:
    """What comes of a scan on engines with memory for so many images at once."""
    scan = folder / "scan.nii.gz"
    if not scan.exists():
        save_scan(scan)
    cascade = with_fallbacks(hungry(fake_cascade(), largest, tried))
    ((_, outcome),) = infer_files(cascade, plan_cases([scan], folder / str(largest)))
    return outcome


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_the_mask_on_each_rung_is_that_of_whole_batches(largest: int, tmp_path: Path) -> None:
    whole, found = segment(tmp_path, 8), segment(tmp_path, largest)
    assert isinstance(whole, Segmentation)
    assert isinstance(found, Segmentation)
    masks = [(tmp_path / str(folder) / "scan_seg.nii.gz").read_bytes() for folder in (8, largest)]
    assert masks[0] == masks[1]
    assert whole.provenance["rung"] == 0
    assert found.provenance["rung"] > 0
    assert max(found.provenance["batch_plan"].values()) <= largest


def test_what_once_was_too_much_is_not_tried_again(tmp_path: Path) -> None:
    tried: list[int] = []
    segment(tmp_path, 2, tried)
    retried = tried[tried.index(2) :]
    assert retried.count(4) <= 1, "once more for the other stage"


@pytest.mark.parametrize("kind", [EngineBuildError, OutputError, BackendUnavailableError])
def test_an_engine_that_cannot_be_built_is_not_a_fallback(
    kind: type[CascadeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_fake(_: object, backend: str, *__: object) -> Engines:
        if backend == "first":
            raise kind("cannot be built")
        opened.append(fake_cascade().engines)
        return opened[-1]

    monkeypatch.setattr("cascade_rt.engines.fallbacks.BACKENDS", ("fake", "first", "second"))
    monkeypatch.setattr("cascade_rt.engines.fallbacks.open_engines", open_fake)
    cascade = fake_cascade()
    tried = attempts(cascade.bundle, cascade.engines, EngineRequest())
    assert [engines.level for engines in tried] == [0, 0, 1]
    with pytest.raises(RuntimeError, match="engine is closed"):
        opened[0].stage1.run({"hu": np.zeros((1, 1, 64, 64), np.float32)})


def test_a_fallback_is_opened_on_the_same_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    def open_fake(*arguments: object) -> Engines:
        devices.append(arguments[-1])
        return fake_cascade().engines

    monkeypatch.setattr("cascade_rt.engines.fallbacks.BACKENDS", ("fake", "first"))
    monkeypatch.setattr("cascade_rt.engines.fallbacks.open_engines", open_fake)
    cascade = fake_cascade()
    list(attempts(cascade.bundle, cascade.engines, EngineRequest(device=3)))
    assert devices == [3]


def test_every_engine_that_was_passed_over_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = {"second": EngineError("TensorRT cannot run (no kernel)"), "third": BackendUnavailableError("no third")}

    def open_fake(_: object, backend: str, *__: object) -> Engines:
        if backend in refusals:
            raise refusals[backend]
        return fake_cascade().engines

    monkeypatch.setattr("cascade_rt.engines.fallbacks.BACKENDS", ("fake", "first", "second", "third", "fourth"))
    monkeypatch.setattr("cascade_rt.engines.fallbacks.open_engines", open_fake)
    cascade = fake_cascade()
    reasons = [engines.passed_over for engines in attempts(cascade.bundle, cascade.engines, EngineRequest())]
    first_reasons = ("fake ran out of memory",)
    later = ("first ran out of memory", "TensorRT cannot run (no kernel)", "no third")
    assert reasons == [(), (), first_reasons, (*first_reasons, *later)]


def test_the_reason_why_an_engine_was_passed_over_names_no_folder() -> None:
    cascade = fake_cascade()
    engines = replace(cascade.engines, passed_over=("/home/doe_john/.cache/engines/plan: cannot be kept",))
    report = Cascade(cascade.bundle, engines).provenance
    assert report["engines_passed_over"] == ["plan: cannot be kept"]


def test_memory_for_not_even_one_image_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    outcome = segment(tmp_path, 0)
    assert isinstance(outcome, EngineOutOfMemoryError)
    assert not list(tmp_path.rglob("*_seg*"))


def test_slices_of_a_second_attempt_are_reported_once(tmp_path: Path) -> None:
    scan = save_scan(tmp_path / "scan.nii.gz")
    reported: list[int] = []
    cascade = with_fallbacks(hungry(fake_cascade(), 1))
    ((_, outcome),) = infer_files(cascade, plan_cases([scan], tmp_path / "out"), on_slices=reported.append)
    assert isinstance(outcome, Segmentation)
    assert sum(reported) == len(outcome.mask)


def test_a_cascade_that_does_not_fall_back_says_that_memory_ran_out(tmp_path: Path) -> None:
    scan = save_scan(tmp_path / "scan.nii.gz")
    ((_, outcome),) = infer_files(hungry(fake_cascade(), 1), plan_cases([scan], tmp_path / "out"))
    assert isinstance(outcome, EngineOutOfMemoryError)
