"""Engines of TensorRT itself, whose layers its inspector tells; needs a GPU and the package."""

from pathlib import Path

import onnx
import pytest

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.engine_cache import EngineCache, Machine
from cascade_rt.engines.nvidia import find_gpu
from cascade_rt_export.trt_build import BuiltEngine, build_engine, cached_engine
from tests.build_reasons import noted
from tests.half_graphs import Converted

pytestmark = pytest.mark.gpu
pytest.importorskip("tensorrt", reason="needs TensorRT and a GPU")

CONFIG = CascadeConfig(base_width=8)


@pytest.fixture(scope="module", params=STAGES)
def half(
    request: pytest.FixtureRequest, stages: dict[Stage, Converted], tmp_path_factory: pytest.TempPathFactory
) -> BuiltEngine:
    path = tmp_path_factory.mktemp("graphs") / "fp16.onnx"
    onnx.save(stages[request.param].half.graph, path)
    return build_engine(path, request.param, CONFIG, flavour="tensorrt", precision="fp16")


def test_the_inspector_shows_half_precision(half: BuiltEngine) -> None:
    assert half.facts.proven_by == "inspector"
    assert half.facts.shares.half >= 0.95


def test_what_was_measured_is_kept_for_the_next_build(half: BuiltEngine) -> None:
    assert half.timings


@pytest.mark.parametrize("stage", STAGES)
def test_a_float32_engine_is_found_in_the_cache(bundle: Bundle, stage: Stage, tmp_path: Path) -> None:
    cache, reasons = EngineCache(tmp_path / "engines"), []
    plans = {
        cached_engine(
            cache,
            Machine.of_gpu(find_gpu()),
            bundle.graph(stage),
            stage,
            CONFIG,
            flavour="tensorrt",
            precision="fp32",
            on_build=noted(reasons),
        ).plan
        for _ in range(2)
    }
    assert (len(plans), len(reasons)) == (1, 1)
