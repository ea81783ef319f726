"""The emulated driver keeps the rules of a real one, and notices what a real GPU would not forgive."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade_rt.engines.cuda_context import releaser
from cascade_rt.engines.device_masks import MaskKernel
from tests.cuda_emulator.driver import Emulator

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
CAPTURE_INVALIDATED = 901

BEGIN = """
import numpy as np, pycuda.driver as cuda
cuda.init()
context = cuda.Device(0).retain_primary_context()
context.push()
memory, stream = cuda.mem_alloc(64), cuda.Stream(1)
locked = cuda.pagelocked_empty(256, np.uint8)
"""


@pytest.fixture
def cuda(emulator: Emulator) -> Iterator[Any]:
    """`pycuda.driver`, with the context of the first GPU current."""
    import pycuda.driver

    pycuda.driver.init()
    context = pycuda.driver.Device(0).retain_primary_context()
    release = releaser(pycuda.driver, context)
    context.push()
    yield pycuda.driver
    pycuda.driver.Context.pop()
    release()


@pytest.fixture
def bindings() -> Any:
    return pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings on the emulated driver")


def violations_of(script: str, folder: Path, **environment: str) -> list[str]:
    """What the driver of a child process complains about."""
    path = folder / "violations"
    path.touch()
    child = os.environ | {"CUDA_EMULATOR_VIOLATIONS": str(path)} | environment
    subprocess.run([sys.executable, "-c", BEGIN + script], check=False, env=child, capture_output=True)
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("cuda.memcpy_htod(int(memory) + 1, np.zeros(64, np.uint8))", "64 bytes at .*, reaches beyond its allocation"),
        ("cuda.memcpy_htod(64, np.zeros(64, np.uint8))", "is not in device memory"),
        ("cuda.memcpy_htod_async(memory, np.zeros(64, np.uint8), stream); stream.synchronize()", "not page-locked"),
        ("cuda.memcpy_dtoh_async(locked, memory, stream); stream.synchronize()", "source of a copy, 256 bytes"),
        ("cuda.memset_d32_async(int(memory), 0, 17, stream); stream.synchronize()", "target of a fill, 68 bytes"),
        (
            "cuda.Context.pop(); import ctypes\n"
            "ctypes.CDLL('libcuda.so.1').cuStreamCreate(ctypes.byref(ctypes.c_void_p()), 1)",
            "cuStreamCreate without a current context",
        ),
        (
            "from cascade_rt.engines.device_masks import PTX\n"
            "kernel = cuda.module_from_buffer(PTX.encode()).get_function('as_mask')\n"
            "kernel.prepare('PPI')\n"
            "kernel.prepared_async_call((1, 1), (32, 1, 1), stream, int(memory), int(memory), 1)",
            "as_mask takes 32 bytes of parameters, got 20",
        ),
        (
            "from cascade_rt.engines.device_masks import MaskKernel\n"
            "MaskKernel(cuda).enqueue(stream, int(memory), int(memory), 17); stream.synchronize()",
            "source of as_mask, 68 bytes",
        ),
        (
            "other = cuda.Device(1).retain_primary_context(); other.push()\n"
            "cuda.memset_d32_async(int(memory), 0, 1, stream)",
            "on a stream of device 0 in the context of device 1",
        ),
        (
            "other = cuda.Device(1).retain_primary_context(); other.push()\n"
            "cuda.memset_d32_async(int(memory), 0, 1, cuda.Stream(1)); cuda.Context.synchronize()",
            "is memory of another device",
        ),
        ("cuda.mem_alloc_pitch(16, 16, 4)", "cuMemAllocPitch_v2 is not emulated"),
    ],
)
def test_what_a_real_gpu_does_not_forgive_is_noticed(
    script: str, complaint: str, tmp_path: Path, emulator: Emulator
) -> None:
    found = violations_of(script, tmp_path)
    assert found
    assert re.search(complaint, found[0])


def test_a_violation_fails_the_test_that_caused_it(tmp_path: Path, emulator: Emulator) -> None:
    (tmp_path / "conftest.py").write_text(
        "from tests.cuda_emulator.fixtures import emulator, no_violation, violations\n"
    )
    script = BEGIN + "cuda.memcpy_htod(64, np.zeros(8, np.uint8))\ncuda.Context.pop()\n"
    test = "import pytest\n@pytest.mark.gpu\ndef test_it():" + script.replace("\n", "\n    ")
    (tmp_path / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", tmp_path]
    child = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, env=child, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "on the emulated GPU:\nillegal address: target of a copy, 8 bytes at 0x40" in done.stdout


def test_work_is_done_when_somebody_waits(cuda: Any) -> None:
    stream, memory = cuda.Stream(1), cuda.mem_alloc(16)
    locked = cuda.pagelocked_empty(4, np.uint32)
    locked[:] = 1
    cuda.memset_d32_async(int(memory), 7, 4, stream)
    cuda.memcpy_dtoh_async(locked, memory, stream)
    assert locked.tolist() == [1] * 4
    stream.synchronize()
    assert locked.tolist() == [7] * 4


def test_memory_is_that_of_the_limit(cuda: Any, emulator: Emulator) -> None:
    emulator.limit_memory(emulator.counters().memory_used + 100)
    cuda.mem_alloc(100).free()
    with pytest.raises(cuda.MemoryError, match="out of memory"):
        cuda.mem_alloc(101)


def test_the_kernel_for_masks_computes_what_numpy_computes(cuda: Any) -> None:
    special = [np.nan, np.inf, -np.inf, -0.0, 0.5, np.nextafter(np.float32(0.5), 0, dtype=np.float32), -1e-4, 1.5]
    values = np.array([*special, *np.random.default_rng(0).uniform(-0.2, 1.2, 1000)], np.float32)
    stream, source, target = cuda.Stream(1), cuda.mem_alloc(values.nbytes), cuda.mem_alloc(values.size)
    cuda.memcpy_htod(source, values)
    kernel = MaskKernel(cuda)
    kernel.enqueue(stream, int(source), int(target), values.size)
    stream.synchronize()
    found = np.empty(values.size, np.uint8)
    cuda.memcpy_dtoh(found, target)
    kernel.close()
    with np.errstate(invalid="ignore"):
        expected = np.where((values >= -1e-3) & (values <= 1 + 1e-3), values >= 0.5, 2)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("what", ["nothing", "an allocation", "page-locked memory", "a wait", "a module"])
def test_a_capture_is_voided_by_what_voids_it(cuda: Any, bindings: Any, emulator: Emulator, what: str) -> None:
    from cascade_rt.engines.device_masks import PTX

    stream, memory = cuda.Stream(1), cuda.mem_alloc(16)
    handle = bindings.CUstream(stream.handle)
    bindings.cuStreamBeginCapture(handle, bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    forbidden = {
        "an allocation": lambda: cuda.mem_alloc(16),
        "page-locked memory": lambda: cuda.pagelocked_empty(16, np.uint8),
        "a wait": stream.synchronize,
        "a module": lambda: cuda.module_from_buffer(PTX.encode()),
    }
    if what in forbidden:
        with pytest.raises(cuda.Error, match="not permitted when stream is capturing"):
            forbidden[what]()
        with pytest.raises(cuda.Error, match="due to a previous error during capture"):
            cuda.memset_d32_async(int(memory), 7, 4, stream)
    else:
        cuda.memset_d32_async(int(memory), 7, 4, stream)
    status, graph = bindings.cuStreamEndCapture(handle)
    assert (int(status) == CAPTURE_INVALIDATED) == (what in forbidden) == bool(emulator.since("voided_captures"))
    if int(status) == 0:
        bindings.cuGraphDestroy(graph)


def test_a_graph_does_its_work_whenever_it_is_launched(cuda: Any, bindings: Any) -> None:
    stream, memory = cuda.Stream(1), cuda.mem_alloc(4)
    handle = bindings.CUstream(stream.handle)
    bindings.cuStreamBeginCapture(handle, bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    cuda.memset_d32_async(int(memory), 7, 1, stream)
    _, graph = bindings.cuStreamEndCapture(handle)
    _, executable = bindings.cuGraphInstantiate(graph, 0)
    bindings.cuGraphDestroy(graph)
    for _ in range(2):
        cuda.memset_d32(int(memory), 1, 1)
        bindings.cuGraphLaunch(executable, handle)
        stream.synchronize()
        found = np.empty(1, np.uint32)
        cuda.memcpy_dtoh(found, memory)
        assert found.tolist() == [7]
    bindings.cuGraphExecDestroy(executable)


@pytest.mark.parametrize(("visible", "numbers"), [("1", "1"), ("1,0", "1 0"), ("", ""), ("0,7,1", "0")])
def test_the_process_sees_the_gpus_that_it_may_see(visible: str, numbers: str, emulator: Emulator) -> None:
    script = (
        "import ctypes; driver = ctypes.CDLL('libcuda.so.1'); count = ctypes.c_int(); driver.cuInit(0)\n"
        "driver.cuDeviceGetCount(ctypes.byref(count)); name = ctypes.create_string_buffer(64)\n"
        "for number in range(count.value):\n"
        "    driver.cuDeviceGetName(name, 64, number); print(name.value.decode().split()[-1], end=' ')"
    )
    child = os.environ | {"CUDA_VISIBLE_DEVICES": visible, "CUDA_EMULATOR_DEVICES": "2"}
    done = subprocess.run([sys.executable, "-c", script], check=True, env=child, capture_output=True, text=True)
    assert done.stdout.strip() == numbers


def test_the_stand_in_of_tensorrt_has_every_name_that_is_used(emulator: Emulator) -> None:
    import tensorrt

    from tests.engines.test_tensorrt_api import RTX_ONLY, missing, names_in, used_names

    used = used_names(lambda name: name not in RTX_ONLY)
    values = {"ITensor", "ParserError", "IHostMemory", "ITimingCache", "IOptimizationProfile", "IBuilderConfig"}
    packaged = {name: members for name, members in used.items() if name not in values | {"EngineInspector"}}
    assert missing(packaged, names_in(tensorrt, packaged)) == []
