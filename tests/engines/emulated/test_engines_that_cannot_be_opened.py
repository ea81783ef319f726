"""Where TensorRT's engines cannot be compiled or stored, the next backend finds the same, and the reason is kept."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.engines import EngineRequest, Engines, open_engines
from cascade_rt.engines.engine_cache import CACHE_VARIABLE
from cascade_rt.engines.fallbacks import attempts
from cascade_rt.errors import CascadeError, EngineBuildError, OutputError
from cascade_rt_export.plans import built_plans
from tests.cuda_emulator.driver import Emulator

pytestmark = pytest.mark.gpu

BUNDLE = read_bundle(embedded_bundle_path("phantom"))
REFUSALS = {"builder": (EngineBuildError, "the engine cannot be built"), "cache": (OutputError, "cannot store")}


@pytest.fixture(params=REFUSALS)
def refusal(
    request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[type[CascadeError], str]]:
    """What TensorRT's engines are refused with, after it was seen to that they are."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "engines"))
    if request.param == "builder":
        monkeypatch.setattr("tensorrt.Builder.build_serialized_network", lambda *_: None)
    else:
        # A read-only file system cannot be had in a test, and permissions do not bind the superuser.
        (tmp_path / "engines").touch()
    yield REFUSALS[request.param]
    # Whoever compiles keeps the GPU's context to the end of the process, as CUDA's runtime does.
    assert set(emulator.left_behind()) <= {"primary_references"}


def assert_next_engine_runs(engines: Engines, reason: str) -> None:
    assert engines.stage1.info.backend == "onnxruntime-cuda"
    assert any(reason in each for each in engines.passed_over)
    engines.stage1.run({"hu": np.zeros((1, 1, 64, 64), np.float32)})


def test_auto_takes_the_next_backend(refusal: tuple[type[CascadeError], str]) -> None:
    with open_engines(BUNDLE, "auto", "fp32", built_plans()) as engines:
        assert_next_engine_runs(engines, refusal[1])


def test_tensorrt_itself_is_refused_with_the_reason(refusal: tuple[type[CascadeError], str]) -> None:
    kind, reason = refusal
    with pytest.raises(kind, match=reason):
        open_engines(BUNDLE, "tensorrt", "fp32", built_plans())


def test_a_fallback_to_tensorrt_goes_on_to_the_next_backend(
    refusal: tuple[type[CascadeError], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if there were a backend better than TensorRT, and its memory ran out."""
    monkeypatch.setattr("cascade_rt.engines.fallbacks.BACKENDS", ("onnxruntime", "tensorrt", "onnxruntime-cuda"))
    with open_engines(BUNDLE, "onnxruntime", "fp32") as engines:
        *_, last = (
            (rung.stage1.info.backend, rung.passed_over)
            for rung in attempts(BUNDLE, engines, EngineRequest("auto", "fp32", built_plans()))
        )
    assert last[0] == "onnxruntime-cuda"
    assert any(refusal[1] in each for each in last[1])
