"""Images are computed side by side where there are processors for it; what they become does not change."""

from collections.abc import Callable

import numpy as np
import pytest

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import CPU_BATCH, STAGE_SPECS, STAGES, EnginePrecision, Stage
from cascade_rt.engines import Backend, open_engine
from cascade_rt.engines.base import StageEngine
from cascade_rt.engines.streams import count_streams, share_out
from tests.bf16 import require_bf16

Open = Callable[[int], StageEngine]
ENGINES: list[tuple[Backend, EnginePrecision]] = [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]


@pytest.mark.parametrize(("cpus", "streams"), [(1, 1), (2, 2), (3, 3), (4, 4), (6, 3), (7, 1), (8, 4), (16, 4)])
def test_all_processors_are_used_and_there_are_at_most_four_streams(cpus: int, streams: int) -> None:
    assert count_streams(cpus) == streams


@pytest.mark.parametrize("streams", [1, 2, 3, 4])
@pytest.mark.parametrize("count", range(1, 10))
def test_every_image_is_in_one_share_and_no_share_is_empty(count: int, streams: int) -> None:
    shares = [list(range(count))[rows] for rows in share_out(count, streams)]
    assert [number for share in shares for number in share] == list(range(count))
    assert len(shares) <= streams
    assert all(shares)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """An embedded one: these tests need no weights of their own."""
    return read_bundle(embedded_bundle_path("phantom"))


@pytest.fixture(params=ENGINES, ids=":".join)
def opened_on(request: pytest.FixtureRequest, bundle: Bundle, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens the engine as on a machine of so many processors."""
    backend, precision = request.param
    if precision == "bf16":
        require_bf16()

    def opened(cpus: int) -> StageEngine:
        for module in ("streams", "onnxruntime_engine", "openvino_session"):
            monkeypatch.setattr(f"cascade_rt.engines.{module}.available_cpus", lambda: cpus)
        engine = open_engine(bundle, stage, backend, precision)
        request.addfinalizer(engine.close)
        return engine

    return opened


@pytest.mark.parametrize("stage", STAGES)
def test_batches_of_any_size_become_what_single_images_become(opened_on: Open, stage: Stage) -> None:
    alone, side_by_side = opened_on(1), opened_on(2)
    (spec,) = STAGE_SPECS[stage].inputs
    scale, shift = (300.0, 0.0) if stage == "stage1" else (0.3, 0.5)
    images = (np.random.default_rng(0).normal(size=(5, 1, 64, 96)) * scale + shift).astype(np.float32)
    for count in (1, 2, 5):
        together = side_by_side.run({spec.name: images[:count]})
        for number in range(count):
            for name, array in alone.run({spec.name: images[number : number + 1]}).items():
                np.testing.assert_allclose(together[name][number : number + 1], array, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_an_engine_says_how_many_streams_it_has_and_wants_images_for_all(opened_on: Open, stage: Stage) -> None:
    engine = opened_on(2)
    streams = 1 if (engine.info.backend, engine.info.precision) == ("openvino", "fp32") else 2
    # How many threads there are, OpenVINO decides by the processors that it really finds.
    assert engine.info.settings["streams"] == str(streams)
    assert engine.preferred_batch == streams * CPU_BATCH[stage]
