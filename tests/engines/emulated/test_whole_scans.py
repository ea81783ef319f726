"""Whole scans on TensorRT, from the bundle to the mask, on the emulated GPU: what ONNX Runtime finds, voxel by voxel.

Engines are built, cached and loaded as for a user; pycuda and cuda-bindings are the real ones.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice, product

import numpy as np
import pytest

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import STAGES
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import EngineRequest, Engines, open_engines
from cascade_rt.engines.engine_cache import CACHE_VARIABLE
from cascade_rt.engines.fallbacks import attempts
from cascade_rt.engines.tensorrt_bridge import DeviceBridge
from cascade_rt.errors import EngineOutOfMemoryError
from cascade_rt.run.scan_run import ScanRun, segment_voxels
from cascade_rt_export.plans import built_plans
from tests.cuda_emulator.driver import Emulator

pytestmark = pytest.mark.gpu

BUNDLE = read_bundle(embedded_bundle_path("phantom"))
SLICES = make_phantom(10001, (48, 224, 224), tumor=True).hu[28:33]
SCANS = {
    "whole slices": SLICES,
    "padded slices": SLICES[1:4, 3:, :-9],
    "slices larger than the first profile": np.pad(
        SLICES[1:3], ((0, 0), (200, 200), (176, 240)), constant_values=-1000
    ),
    "a single slice": SLICES[2:3],
}


def segment(engines: Engines, voxels: np.ndarray, *, keep_probabilities: bool = False) -> ScanRun:
    voxels = np.ascontiguousarray(voxels, np.int16)
    return segment_voxels(engines, BUNDLE.manifest.config, voxels, None, keep_probabilities=keep_probabilities)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines are built once for each GPU, whose context is then kept to the end of the process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("engines")))
        for device, stage in product((0, 1), STAGES):
            built_plans()(BUNDLE, stage, "fp32", device)
        yield


@pytest.fixture(scope="module")
def expected() -> Iterator[Callable[..., ScanRun]]:
    """What ONNX Runtime finds on the CPU; computed once for each scan."""
    found: dict[tuple[str, bool], ScanRun] = {}
    with open_engines(BUNDLE, "onnxruntime", "fp32") as engines:

        def find(scan: str, *, keep_probabilities: bool = False) -> ScanRun:
            key = scan, keep_probabilities
            if key not in found:
                found[key] = segment(engines, SCANS[scan], keep_probabilities=keep_probabilities)
            return found[key]

        yield find


@pytest.fixture
def engines(emulator: Emulator) -> Iterator[Engines]:
    with open_engines(BUNDLE, "tensorrt", "fp32", built_plans()) as engines:
        yield engines


def assert_masks_equal(found: ScanRun, expected: ScanRun) -> None:
    assert expected.mask.any(), "a scan in which nothing is found shows nothing"
    assert int((found.mask != expected.mask).sum()) == 0


@pytest.mark.parametrize("scan", SCANS)
def test_the_mask_is_that_of_onnxruntime(engines: Engines, expected: Callable[..., ScanRun], scan: str) -> None:
    assert isinstance(engines.bridge(), DeviceBridge)
    for _ in range(3):  # plain, recorded as CUDA graphs, and the graphs again
        assert_masks_equal(segment(engines, SCANS[scan]), expected(scan))


@pytest.mark.parametrize("scan", ["whole slices", "padded slices"])
def test_probabilities_are_those_of_onnxruntime(engines: Engines, expected: Callable[..., ScanRun], scan: str) -> None:
    found, wanted = (
        segment(engines, SCANS[scan], keep_probabilities=True),
        expected(scan, keep_probabilities=True),
    )
    np.testing.assert_array_equal(found.organ_prob, wanted.organ_prob)
    np.testing.assert_array_equal(found.tumor_prob, wanted.tumor_prob)


def test_both_profiles_are_used(engines: Engines) -> None:
    import tensorrt

    segment(engines, SCANS["whole slices"])
    assert set(tensorrt.behaviour.profiles_run) == {0}
    segment(engines, SCANS["slices larger than the first profile"])
    assert set(tensorrt.behaviour.profiles_run) == {0, 1}


def test_repeated_shapes_are_launched_as_graphs(engines: Engines, emulator: Emulator) -> None:
    for _ in range(3):
        segment(engines, SCANS["whole slices"])
    assert emulator.since("graph_launches") > 0
    assert emulator.since("voided_captures") == 0


@pytest.mark.parametrize("fault", ["refuses_capture", "allocates_in_capture"])
def test_where_nothing_can_be_recorded_the_mask_is_the_same(
    engines: Engines, emulator: Emulator, expected: Callable[..., ScanRun], fault: str
) -> None:
    import tensorrt

    setattr(tensorrt.behaviour, fault, True)
    for _ in range(3):
        assert_masks_equal(segment(engines, SCANS["padded slices"]), expected("padded slices"))
    assert emulator.since("graph_launches") == 0


def test_threads_take_turns_and_find_the_same(engines: Engines, expected: Callable[..., ScanRun]) -> None:
    with ThreadPoolExecutor(3) as pool:
        runs = pool.map(lambda _: segment(engines, SCANS["padded slices"]), range(6))
        for run in runs:
            assert_masks_equal(run, expected("padded slices"))


def test_threads_with_engines_of_their_own_find_the_same(emulator: Emulator, expected: Callable[..., ScanRun]) -> None:
    def run(_: int) -> ScanRun:
        with open_engines(BUNDLE, "tensorrt", "fp32", built_plans()) as engines:
            return [segment(engines, SCANS["padded slices"]) for _ in range(3)][-1]

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(run, range(4)):
            assert_masks_equal(found, expected("padded slices"))
    assert emulator.left_behind() == {}


def test_a_scan_leaves_no_memory_to_the_next(engines: Engines, emulator: Emulator) -> None:
    for _ in range(2):
        segment(engines, SCANS["whole slices"])
    before = emulator.left_behind()
    segment(engines, SCANS["whole slices"])
    assert emulator.left_behind() == before


def test_closed_engines_leave_nothing_behind(emulator: Emulator) -> None:
    with open_engines(BUNDLE, "tensorrt", "fp32", built_plans()) as engines:
        for scan in SCANS.values():
            segment(engines, scan, keep_probabilities=True)
            segment(engines, scan)
        assert emulator.left_behind()
    assert emulator.left_behind() == {}


def masks_of_attempts(engines: Engines) -> Iterator[tuple[Engines, ScanRun | None]]:
    """What each rung of the ladder finds; None where memory runs out."""
    request = EngineRequest("auto", "fp32", built_plans())
    with closing(attempts(BUNDLE, engines, request)) as rungs:
        for rung in rungs:
            try:
                yield rung, segment(rung, SCANS["whole slices"])
            except EngineOutOfMemoryError:
                yield rung, None


@pytest.mark.parametrize(("share", "halved"), [(0.8, False), (0.5, True)])
def test_where_memory_is_short_buffers_are_freed_then_batches_halved_and_the_mask_is_the_same(
    engines: Engines, emulator: Emulator, expected: Callable[..., ScanRun], share: float, halved: bool
) -> None:
    engines.stage1.forget_shapes()
    engines.stage2.forget_shapes()
    segment(engines, SCANS["whole slices"])
    emulator.limit_memory(int(share * emulator.counters().memory_used))
    rung, run = next((rung, run) for rung, run in masks_of_attempts(engines) if run is not None)
    assert (rung.stage1.info.backend, rung.level > 0) == ("tensorrt", halved)
    assert_masks_equal(run, expected("whole slices"))


def test_where_no_batch_fits_the_next_engine_finds_the_same(
    engines: Engines, emulator: Emulator, expected: Callable[..., ScanRun]
) -> None:
    emulator.limit_memory(SLICES[0].size)
    tried = list(islice(masks_of_attempts(engines), 3))
    assert [rung.stage1.info.backend for rung, _ in tried] == ["tensorrt", "tensorrt", "onnxruntime-cuda"]
    assert [run is None for _, run in tried] == [True, True, False]
    assert_masks_equal(tried[-1][1], expected("whole slices"))


def test_each_of_two_gpus_computes_what_it_is_given(emulator: Emulator, expected: Callable[..., ScanRun]) -> None:
    for device in (0, 1):
        before = [emulator.since("allocations", each) for each in (0, 1)]
        with open_engines(BUNDLE, "tensorrt", "fp32", built_plans(), device=device) as engines:
            for _ in range(2):
                assert_masks_equal(segment(engines, SCANS["padded slices"]), expected("padded slices"))
        grown = [emulator.since("allocations", each) > before[each] for each in (0, 1)]
        assert grown == [each == device for each in (0, 1)]
    assert [emulator.left_behind(each) for each in (0, 1)] == [{}, {}]


def test_two_gpus_at_once_find_the_same(emulator: Emulator, expected: Callable[..., ScanRun]) -> None:
    def run(device: int) -> ScanRun:
        with open_engines(BUNDLE, "tensorrt", "fp32", built_plans(), device=device) as engines:
            return [segment(engines, SCANS["padded slices"]) for _ in range(3)][-1]

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(run, (0, 1)):
            assert_masks_equal(found, expected("padded slices"))
