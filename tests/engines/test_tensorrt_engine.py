"""A stage on TensorRT, with libraries that compute with numpy; the engine contract runs on real ones."""

from collections.abc import Callable

import numpy as np
import pytest

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.engines import open_engine, open_engines
from cascade_rt.engines.nvidia import Gpu
from cascade_rt.engines.plans import Plan
from cascade_rt.engines.tensorrt_engine import TensorRtEngine
from cascade_rt.errors import BackendUnavailableError, OutsideProfileError
from tests.fake_gpu import FakeGpu, doubling


@pytest.fixture
def gpu(a_gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    smallest = (1, 1, 64, 64)
    profiles = ((smallest, (4, 1, 128, 128)), (smallest, (1, 1, 256, 256)))
    fake = FakeGpu({b"a plan": doubling("salient", "tumor_prob", profiles)})
    fake.install(monkeypatch)
    return fake


@pytest.fixture
def open_stage2(gpu: FakeGpu, a_gpu: Gpu) -> Callable[[], TensorRtEngine]:
    return lambda: TensorRtEngine(Plan(b"a plan", "fp16"), "stage2", a_gpu)


def image(batch: int = 1, side: int = 64) -> dict[str, np.ndarray]:
    return {"salient": np.random.default_rng(0).random((batch, 1, side, side), dtype=np.float32)}


@pytest.mark.parametrize(
    ("batch", "side", "profiles"),
    [(1, 64, [0]), (4, 64, [0]), (5, 64, [0, 0]), (9, 128, [0, 0, 0]), (1, 144, [1]), (3, 256, [1, 1, 1])],
)
def test_a_batch_larger_than_the_engine_was_built_for_runs_in_parts(
    open_stage2: Callable[[], TensorRtEngine], gpu: FakeGpu, batch: int, side: int, profiles: list[int]
) -> None:
    outputs = open_stage2().run(image(batch, side))
    np.testing.assert_array_equal(outputs["tumor_prob"], 2 * image(batch, side)["salient"])
    assert gpu.profiles_run == profiles


def test_an_image_larger_than_the_engine_was_built_for_is_refused(open_stage2: Callable[[], TensorRtEngine]) -> None:
    with pytest.raises(OutsideProfileError, match=r"to \[4, 1, 128, 128\], or .*, got 'salient' in shape \[1, 1, 272"):
        open_stage2().run(image(side=272))


def test_it_says_the_precision_of_its_plan_and_the_gpu(open_stage2: Callable[[], TensorRtEngine]) -> None:
    info = open_stage2().info
    assert (info.precision, info.device, info.version) == ("fp16", "NVIDIA Test (GPU 0)", "11.4")
    assert info.settings == {"cuda_graphs": "on"}


def test_closed_it_refuses_to_run(open_stage2: Callable[[], TensorRtEngine]) -> None:
    engine = open_stage2()
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="the stage2 engine is closed"):
        engine.run(image())


def test_an_engine_of_another_stage_is_refused_and_leaves_no_memory(gpu: FakeGpu, a_gpu: Gpu) -> None:
    with pytest.raises(BackendUnavailableError, match="is not for stage1, its tensors are"):
        TensorRtEngine(Plan(b"a plan", "fp32"), "stage1", a_gpu)
    assert gpu.memory == {}


@pytest.mark.usefixtures("gpu", "equal_gpus")
def test_the_source_of_plans_is_asked_for_the_stage_that_is_opened() -> None:
    asked: list[tuple[str, Stage, Precision, int]] = []

    def plans(bundle: Bundle, stage: Stage, precision: Precision, device: int) -> Plan:
        asked.append((bundle.manifest.name, stage, precision, device))
        return Plan(b"a plan", precision)

    open_engine(read_bundle(embedded_bundle_path("phantom")), "stage2", "tensorrt", "fp16", plans, device=3)
    assert asked == [("phantom_bundle", "stage2", "fp16", 3)]


def test_it_runs_on_the_gpu_of_the_number_asked_for(gpu: FakeGpu, equal_gpus: tuple[Gpu, ...]) -> None:
    engine = TensorRtEngine(Plan(b"a plan", "fp32"), "stage2", equal_gpus[1])
    assert (gpu.devices, engine.info.device) == ([1], "NVIDIA Test (GPU 1)")


@pytest.mark.usefixtures("gpu")
def test_without_a_source_of_plans_it_is_unavailable_in_one_sentence() -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"has no fp32 engine for stage1 of bundle 'phantom_bundle' .*, or choose"
    ):
        open_engines(read_bundle(embedded_bundle_path("phantom")), "tensorrt", "fp32")
