"""What passes between the stages on one GPU is what passes between them on the host; on the emulated GPU."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cascade_rt.engines import Engines
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.engines.nvidia import find_gpu
from cascade_rt.engines.plans import Plan
from cascade_rt.engines.stage_bridge import HostBridge
from cascade_rt.engines.tensorrt_bridge import DeviceBridge
from cascade_rt.engines.tensorrt_engine import TensorRtEngine
from cascade_rt.errors import EngineError
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.volume import Volume
from tests.cohort_files import AFFINE, fake_cascade
from tests.cuda_emulator.driver import Emulator
from tests.emulated_networks import organ_by_hu, plan_of, squaring

pytestmark = pytest.mark.gpu

SMALLEST = (1, 1, 64, 64)
WINDOW_HU = fake_cascade().bundle.manifest.config.window_hu
PROFILES = ((SMALLEST, (4, 1, 160, 160)), (SMALLEST, (1, 1, 512, 512)))


def host_cascade(**crop: object) -> Cascade:
    """The same networks, with numpy."""
    cascade = fake_cascade(**crop)  # type: ignore[arg-type]
    stage2 = FakeEngine("stage2", lambda inputs: {"tumor_prob": inputs["salient"] * inputs["salient"]})
    return Cascade(cascade.bundle, replace(cascade.engines, stage2=stage2))


@pytest.fixture
def engines(emulator: Emulator) -> Iterator[Engines]:
    plan1 = plan_of(organ_by_hu(50.0, WINDOW_HU), PROFILES)
    plan2 = plan_of(squaring("salient", "tumor_prob"), PROFILES)
    stage1 = TensorRtEngine(Plan(plan1, "fp32"), "stage1", find_gpu())
    stage2 = TensorRtEngine(Plan(plan2, "fp32"), "stage2", find_gpu())
    yield Engines(stage1, stage2)
    stage1.close()
    stage2.close()


@pytest.fixture
def on_gpu(engines: Engines) -> Callable[..., Cascade]:
    return lambda **crop: Cascade(host_cascade(**crop).bundle, engines)


def behaviour() -> Any:
    """What the stand-in of TensorRT is told to do."""
    import tensorrt

    return tensorrt.behaviour


def scan(*shape: int, seed: int = 0) -> Volume:
    """Air with a box of noise in each slice but the first, at places of its own."""
    random = np.random.default_rng(seed)
    voxels = np.full(shape, -1000, dtype=np.int16)
    for image in voxels[1:]:
        row, col = (random.integers(0, length) for length in shape[1:])
        part = image[row : row + random.integers(1, 90), col : col + random.integers(1, 90)]
        part[...] = random.integers(-100, 240, part.shape)
    return Volume.from_array(voxels.T, AFFINE)


SHAPES = [(6, 96, 128), (19, 150, 70), (5, 33, 40), (6, 200, 250), (1, 64, 64)]
"""A usual scan, one with padding and many crops, one smaller than its crops, one larger than the first profile."""


@pytest.mark.parametrize("empty_policy", ["full", "skip"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_scan_is_segmented_as_on_the_host(
    on_gpu: Callable[..., Cascade], shape: tuple[int, ...], empty_policy: str
) -> None:
    crop = {"empty_policy": empty_policy, "margin": 5}
    expected = host_cascade(**crop).run(scan(*shape), keep_probabilities=True)
    for _ in range(3):  # plain, recorded as a CUDA graph, and the graph again
        found = on_gpu(**crop).run(scan(*shape), keep_probabilities=True)
        np.testing.assert_array_equal(found.tumor_prob, expected.tumor_prob)
        np.testing.assert_array_equal(found.mask, expected.mask)
        assert found.boxes == expected.boxes
        np.testing.assert_array_equal(on_gpu(**crop).run(scan(*shape)).mask, expected.mask)


@pytest.mark.parametrize(
    ("target", "keep_probabilities", "slice_pixel", "crop_pixel"),
    [("organ", False, 1, 1), ("tumor", False, 1, 4), ("organ", True, 1, 4), ("tumor", True, 4, 4)],
)
def test_probabilities_leave_the_gpu_only_if_kept_or_for_lesion_scores(
    on_gpu: Callable[..., Cascade],
    emulator: Emulator,
    target: str,
    keep_probabilities: bool,
    slice_pixel: int,
    crop_pixel: int,
) -> None:
    slices, rows, cols = 6, 96, 128
    cascade = on_gpu(target=target, empty_policy="skip")
    found = cascade.run(scan(slices, rows, cols), keep_probabilities=keep_probabilities)
    crops = sum(box.height * box.width for box in found.boxes.values())
    assert emulator.since("bytes_to_device") == 4 * slices * rows * cols
    assert (
        emulator.since("bytes_to_host")
        == 4 * slices * (rows + cols) + slice_pixel * slices * rows * cols + crop_pixel * crops
    )


def test_after_a_scan_only_the_memory_of_the_engines_is_left(
    on_gpu: Callable[..., Cascade], emulator: Emulator
) -> None:
    on_gpu().run(scan(6, 96, 128))
    after_one = emulator.counters().blocks
    on_gpu().run(scan(6, 96, 128))
    assert emulator.counters().blocks == after_one
    on_gpu().close()
    assert emulator.counters().blocks == 0


def test_a_longer_scan_takes_no_more_memory(on_gpu: Callable[..., Cascade], emulator: Emulator) -> None:
    allocations = []
    for slices in (16, 16, 64):
        before = emulator.counters().allocations
        on_gpu().run(Volume.from_array(np.full((64, 64, slices), -1000, dtype=np.int16), AFFINE))
        allocations.append(emulator.counters().allocations - before)
    _, short, long = allocations
    assert long == short


def test_halved_batches_start_without_the_buffers_of_whole_ones(
    on_gpu: Callable[..., Cascade], engines: Engines, emulator: Emulator
) -> None:
    on_gpu().run(scan(6, 96, 128))
    assert engines.halve_batches()
    assert emulator.counters().blocks == 0


def test_a_run_that_fails_frees_the_crops(on_gpu: Callable[..., Cascade], engines: Engines, emulator: Emulator) -> None:
    behaviour().refuses_to_run = True
    with pytest.raises(EngineError, match="TensorRT cannot run"):
        on_gpu().run(scan(6, 96, 128))
    engines.stage1.close()
    assert emulator.counters().blocks == 0


def test_a_failure_of_the_caller_frees_the_crops_that_wait(
    on_gpu: Callable[..., Cascade], engines: Engines, emulator: Emulator
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_gpu().run(scan(6, 96, 128), on_slices=interrupt)
    engines.stage1.close()
    assert emulator.counters().blocks == 0


def test_nan_in_the_salient_image_is_detected_in_the_output_of_stage_2(on_gpu: Callable[..., Cascade]) -> None:
    def spoil(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return outputs | {name: np.full_like(outputs[name], np.nan) for name in outputs.keys() & {"salient"}}

    behaviour().spoil = spoil
    with pytest.raises(EngineError, match="stage2 on tensorrt returned NaN or infinity in 'tumor_prob'"):
        on_gpu().run(scan(6, 96, 128))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
@pytest.mark.parametrize("keep_probabilities", [False, True])
def test_invalid_probabilities_are_detected_on_the_gpu_too(
    on_gpu: Callable[..., Cascade], value: float, keep_probabilities: bool
) -> None:
    def spoil(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for array in (outputs[name] for name in outputs.keys() & {"organ_prob"}):
            array[..., 5, 7] = value
        return outputs

    behaviour().spoil = spoil
    with pytest.raises(EngineError, match=r"stage1 on tensorrt returned .* in 'organ_prob'"):
        on_gpu().run(scan(3, 64, 64), keep_probabilities=keep_probabilities)


def test_the_same_shape_may_come_from_the_host_and_from_the_gpu_in_turn(
    on_gpu: Callable[..., Cascade], engines: Engines
) -> None:
    volume = scan(3, 64, 64)
    expected = host_cascade().run(volume, keep_probabilities=True)
    image = np.random.default_rng(1).random((3, 1, 64, 64), dtype=np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(on_gpu().run(volume, keep_probabilities=True).tumor_prob, expected.tumor_prob)
        np.testing.assert_array_equal(engines.stage2.run({"salient": image})["tumor_prob"], image * image)


def test_an_engine_of_unproven_precision_is_a_warning_of_every_result(engines: Engines) -> None:
    plan = Plan(plan_of(organ_by_hu(50.0, WINDOW_HU), PROFILES), "fp32", "its layers cannot be read")
    stage1 = TensorRtEngine(plan, "stage1", find_gpu())
    found = Cascade(host_cascade().bundle, replace(engines, stage1=stage1)).run(scan(2, 64, 64))
    stage1.close()
    (warning,) = [each for each in found.warnings if each.code == "W_PRECISION_UNPROVEN"]
    assert "stage1 was computed in fp32 (its layers cannot be read)" in warning.message
    assert found.provenance["engine"]["settings"]["precision_doubt"] == "its layers cannot be read"


def test_two_stages_on_tensorrt_share_the_gpu(engines: Engines) -> None:
    assert isinstance(engines.bridge(), DeviceBridge)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_stage_that_is_elsewhere_gets_its_images_through_the_host(engines: Engines, stage: str) -> None:
    elsewhere = getattr(host_cascade().engines, stage)
    assert isinstance(replace(engines, **{stage: elsewhere}).bridge(), HostBridge)
