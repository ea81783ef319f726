"""A stage on TensorRT, on the emulated GPU; the engine contract says what all engines have in common."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.engines import open_engine, open_engines
from cascade_rt.engines.nvidia import find_gpu
from cascade_rt.engines.plans import Plan
from cascade_rt.engines.tensorrt_engine import TensorRtEngine
from cascade_rt.errors import BackendUnavailableError, OutsideProfileError
from tests.cuda_emulator.driver import Emulator
from tests.emulated_networks import doubling, plan_of

pytestmark = pytest.mark.gpu

SMALLEST = (1, 1, 64, 64)
PROFILES = ((SMALLEST, (4, 1, 128, 128)), (SMALLEST, (1, 1, 256, 256)))


@pytest.fixture
def plan(emulator: Emulator) -> bytes:
    return plan_of(doubling("salient", "tumor_prob"), PROFILES)


@pytest.fixture
def stage2(plan: bytes) -> Iterator[TensorRtEngine]:
    engine = TensorRtEngine(Plan(plan, "fp16"), "stage2", find_gpu())
    yield engine
    engine.close()


def image(batch: int = 1, side: int = 64) -> dict[str, np.ndarray]:
    return {"salient": np.random.default_rng(0).random((batch, 1, side, side), dtype=np.float32)}


@pytest.mark.parametrize(
    ("batch", "side", "profiles"),
    [(1, 64, [0]), (4, 64, [0]), (5, 64, [0, 0]), (9, 128, [0, 0, 0]), (1, 144, [1]), (3, 256, [1, 1, 1])],
)
def test_a_batch_larger_than_the_engine_was_built_for_runs_in_parts(
    stage2: TensorRtEngine, batch: int, side: int, profiles: list[int]
) -> None:
    import tensorrt

    outputs = stage2.run(image(batch, side))
    np.testing.assert_array_equal(outputs["tumor_prob"], 2 * image(batch, side)["salient"])
    assert tensorrt.behaviour.profiles_run == profiles


def test_an_image_larger_than_the_engine_was_built_for_is_refused(stage2: TensorRtEngine) -> None:
    with pytest.raises(OutsideProfileError, match=r"to \[4, 1, 128, 128\], or .*, got 'salient' in shape \[1, 1, 272"):
        stage2.run(image(side=272))


def test_it_says_the_precision_of_its_plan_and_the_gpu(stage2: TensorRtEngine) -> None:
    info = stage2.info
    assert (info.precision, info.device) == ("fp16", str(find_gpu()))
    assert info.version.startswith("11.4")
    assert info.settings["cuda_graphs"] == "on"


def test_closed_it_refuses_to_run(stage2: TensorRtEngine) -> None:
    stage2.close()
    stage2.close()
    with pytest.raises(RuntimeError, match="the stage2 engine is closed"):
        stage2.run(image())


def test_an_engine_of_another_stage_is_refused_and_leaves_nothing(plan: bytes, emulator: Emulator) -> None:
    with pytest.raises(BackendUnavailableError, match="is not for stage1, its tensors are"):
        TensorRtEngine(Plan(plan, "fp32"), "stage1", find_gpu())
    assert emulator.left_behind() == {}


def test_the_source_of_plans_is_asked_for_the_stage_that_is_opened(plan: bytes) -> None:
    asked: list[tuple[str, Stage, Precision, int]] = []

    def plans(bundle: Bundle, stage: Stage, precision: Precision, device: int) -> Plan:
        asked.append((bundle.manifest.name, stage, precision, device))
        return Plan(plan, precision)

    open_engine(read_bundle(embedded_bundle_path("phantom")), "stage2", "tensorrt", "fp16", plans, device=1).close()
    assert asked == [("phantom_bundle", "stage2", "fp16", 1)]


def test_it_runs_on_the_gpu_of_the_number_asked_for(plan: bytes, emulator: Emulator) -> None:
    with closing(TensorRtEngine(Plan(plan, "fp32"), "stage2", find_gpu(device=1))) as engine:
        engine.run(image())
        assert engine.info.device == str(find_gpu(device=1))
    assert [emulator.since("allocations", device) > 0 for device in (0, 1)] == [False, True]


@pytest.mark.usefixtures("emulator")
def test_without_a_source_of_plans_it_is_unavailable_in_one_sentence() -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"has no fp32 engine for stage1 of bundle 'phantom_bundle' .*, or choose"
    ):
        open_engines(read_bundle(embedded_bundle_path("phantom")), "tensorrt", "fp32")
