"""TensorRT sessions with the real pycuda and cuda-bindings on an emulated CUDA driver: what they leave behind."""

import contextlib
import ctypes
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cascade_rt.engines import tensorrt_session
from cascade_rt.engines.device_images import DeviceImages
from cascade_rt.engines.device_masks import DeviceMasks
from cascade_rt.engines.tensorrt_session import TensorRtSession
from cascade_rt.errors import BackendUnavailableError, EngineOutOfMemoryError
from tests.cuda_emulator.driver import Emulator
from tests.emulated_networks import doubling, plan_of

pytestmark = pytest.mark.gpu
cuda: Any = pytest.importorskip("pycuda.driver", reason="needs pycuda on the emulated driver")

SIDE = 64
IMAGE_BYTES = 4 * SIDE * SIDE


PROFILES = [((1, 1, 16, 16), (64, 1, 512, 512))]


@pytest.fixture
def open_session(emulator: Emulator) -> Callable[[], TensorRtSession]:
    cuda.init()
    return lambda: TensorRtSession(plan_of(doubling(), PROFILES))


def image(side: int = SIDE, batch: int = 1) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(side).random((batch, 1, side, side), dtype=np.float32)}


def run(session: TensorRtSession, side: int = SIDE, batch: int = 1) -> None:
    given = image(side, batch)
    np.testing.assert_array_equal(session.run(given)["doubled"], 2 * given["image"])


def in_thread(work: Callable[[], None]) -> None:
    """Do work in another thread, and raise what it raises."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def read_masks(session: TensorRtSession) -> None:
    """Binarize an image on the GPU, as a scan does."""
    images = DeviceImages(session.cuda, session.stream)
    masks = DeviceMasks(session.cuda, session.stream, session.mask_kernel())
    with session.on_gpu():
        masks.read([images.take(SIDE, SIDE)])
        images.close()
        masks.close()


def test_a_closed_session_leaves_nothing_and_no_word(
    open_session: Callable[[], TensorRtSession], emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    session = open_session()
    for _ in range(3):
        run(session)
    read_masks(session)
    session.close()
    assert emulator.left_behind() == {}
    del session
    gc.collect()
    assert emulator.left_behind() == {}
    assert capfd.readouterr().err == ""


def test_a_session_that_is_forgotten_leaves_nothing_either(
    open_session: Callable[[], TensorRtSession], emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    session = open_session()
    run(session)
    read_masks(session)
    del session
    gc.collect()
    assert emulator.left_behind() == {}
    assert capfd.readouterr().err == ""


def test_a_session_that_is_closed_while_an_error_is_handled_leaves_nothing(
    open_session: Callable[[], TensorRtSession], emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    """The traceback then refers to all that the run has held."""
    session = open_session()
    run(session)
    emulator.limit_memory(emulator.counters().memory_used)
    with pytest.raises(EngineOutOfMemoryError) as raised:
        run(session, 512, 64)
    session.close()
    assert emulator.left_behind() == {}
    assert raised.value is not None
    assert capfd.readouterr().err == ""


def test_a_plan_that_is_refused_leaves_nothing(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorrt.Runtime.deserialize_cuda_engine", lambda *_: None)
    with pytest.raises(BackendUnavailableError, match="rejects the engine"):
        TensorRtSession(b"")
    assert emulator.left_behind() == {}


def test_the_context_that_was_current_before_is_current_after(
    open_session: Callable[[], TensorRtSession], emulator: Emulator
) -> None:
    """Notebooks make a context current with `pycuda.autoprimaryctx` and keep it so."""
    outer = cuda.Device(0).retain_primary_context()
    outer.push()
    session = open_session()
    run(session)
    session.close()
    assert (cuda.Context.get_current(), emulator.context_depth) == (outer, 1)
    cuda.mem_alloc(16).free()
    cuda.Context.pop()
    assert emulator.left_behind() == {"primary_references": 1}
    outer.push()
    outer.detach()
    ctypes.CDLL("libcuda.so.1").cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def test_a_session_may_be_opened_used_and_closed_in_different_threads(
    open_session: Callable[[], TensorRtSession], emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    sessions: list[TensorRtSession] = []
    in_thread(lambda: sessions.append(open_session()))
    in_thread(lambda: run(sessions[0]))
    in_thread(lambda: read_masks(sessions[0]))
    in_thread(sessions[0].close)
    sessions.clear()
    gc.collect()
    assert emulator.left_behind() == {}
    assert capfd.readouterr().err == ""


def test_the_kernel_is_loaded_once_however_many_scans_and_threads(
    open_session: Callable[[], TensorRtSession], emulator: Emulator
) -> None:
    session = open_session()
    for _ in range(3):
        in_thread(lambda: read_masks(session))
    assert emulator.counters().modules == 1
    session.close()


def test_a_run_for_which_memory_is_short_frees_what_is_kept_for_other_sizes(
    open_session: Callable[[], TensorRtSession], emulator: Emulator
) -> None:
    session = open_session()
    for side in (16, 32, 48, 64):
        run(session, side, 8)
    used = emulator.counters().memory_used
    emulator.limit_memory(used + 8 * IMAGE_BYTES)
    run(session, SIDE, 12)
    assert emulator.counters().memory_used < used + 8 * IMAGE_BYTES
    session.close()


def test_if_memory_is_short_all_the_same_nothing_of_the_run_is_kept(
    open_session: Callable[[], TensorRtSession], emulator: Emulator
) -> None:
    session = open_session()
    run(session, 16)
    workspace, room_for_input = 1, emulator.counters().memory_used + 3 * IMAGE_BYTES // 2
    emulator.limit_memory(room_for_input)
    for _ in range(3):
        with pytest.raises(EngineOutOfMemoryError):
            session.run(image())
    assert emulator.since("blocks") == workspace
    assert [emulator.since(name) for name in ("pinned_blocks", "events", "graphs")] == [0, 0, 0]
    session.close()


@pytest.mark.parametrize("allocation", ["memory", "page-locked memory"])
def test_an_allocation_while_a_run_is_recorded_ends_no_run(
    open_session: Callable[[], TensorRtSession],
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    allocation: str,
) -> None:
    """The driver then refuses whatever is put on the stream afterwards, but TensorRT returns True."""
    session = open_session()
    run(session)
    allocate = {"memory": cuda.mem_alloc, "page-locked memory": lambda size: cuda.pagelocked_empty(size, np.uint8)}
    enqueue = tensorrt_session._ShapeSlot._enqueue

    def enqueue_after_allocating(slot: object) -> None:
        with contextlib.suppress(cuda.Error):
            allocate[allocation](64)
        enqueue(slot)

    monkeypatch.setattr(tensorrt_session._ShapeSlot, "_enqueue", enqueue_after_allocating)
    before = emulator.counters()
    for _ in range(3):
        run(session)
    after = emulator.counters()
    assert after.voided_captures > before.voided_captures
    assert after.graph_launches == before.graph_launches
    session.close()
    assert emulator.left_behind() == {}
