"""What the driver itself does with our kernel, our copies and our graphs: cuda-bindings alone."""

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.expedition.parts import Write
from benchmarks.gpu.expedition.raw_driver import Arguments, RawDriver
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.lines import reason_of
from cascade_rt.engines.device_masks import NOT_A_PROBABILITY, PTX
from cascade_rt.engines.nvidia import find_gpu
from cascade_rt.engines.stage_bridge import MASK_THRESHOLD, ROUNDING

FLOATS = 1_000_003
"""No multiple of the threads of a block, so that the last block has idle ones."""
THREADS = 256
COLUMNS = (64, 80, 112, 144, 160, 176, 192, 304, 512, 528, 816, 1040, 2048)
"""Widths of slices and crops, in pixels of four bytes: pitches are multiples of 64 bytes, most of no power of two."""
SIZES = {"4MB": 4 << 20, "256MB": 256 << 20}

Check = Callable[[RawDriver, Any], dict[str, Any]]
"""Takes the driver and a stream; returns what was seen, with `passed`, or None there if it only tells."""


def run(settings: Settings, write: Write, deadline: Deadline) -> None:  # noqa: ARG001  it is killed then
    """Do all checks; one that fails is a line with the reason.

    Raises:
        BackendUnavailableError: There is no driver or no GPU, or cuda-bindings is not installed.
        EngineError: The driver refuses its primary context.
    """
    find_gpu()
    driver = RawDriver()
    sizes = {"4MB": SIZES["4MB"]} if settings.emulated else SIZES
    checks: dict[str, Check] = {
        "masks": check_masks,
        "copy_2d": check_copies_of_rectangles,
        "graph": check_graph,
        "voided_capture": see_voided_capture,
        "copy_rates": partial(see_copy_rates, sizes=sizes),
    }
    with driver.primary_context():
        for name, check in checks.items():
            write("driver", {"name": name, "passed": None, "reason": None, **_checked(check, driver)})
    write("driver", {"name": "detach", "passed": None, "reason": None, **see_detach()})


def _checked(check: Check, driver: RawDriver) -> dict[str, Any]:
    try:
        return check(driver, driver("cuStreamCreate", 1))
    except Exception as error:  # noqa: BLE001  whatever the driver answers is a result
        return {"passed": False, "reason": reason_of(error)}


def adversarial_floats(count: int) -> npt.NDArray[np.float32]:
    """Floats of all kinds: any bits, the limits of the kernel and their neighbours, probabilities, denormals."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 1 << 32, count, dtype=np.uint32)
    values = bits.view(np.float32)
    values[::3] = generator.random(len(values[::3]), dtype=np.float32) * np.float32(1.2) - np.float32(0.1)
    limits = np.array([0, MASK_THRESHOLD, 1, -ROUNDING, 1 + ROUNDING], dtype=np.float32)
    near = limits.view(np.int32)[:, None] + np.arange(-8, 9, dtype=np.int32)
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38], dtype=np.float32)
    edges = np.concatenate([near.reshape(-1).view(np.float32), special])
    values[: len(edges)] = edges
    return values


def expected_masks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """What the kernel is to write for values, with its limits rounded to float32 as its arguments are."""
    threshold, lowest, highest = np.float32(MASK_THRESHOLD), np.float32(-ROUNDING), np.float32(1 + ROUNDING)
    with np.errstate(invalid="ignore"):
        probability = (values >= lowest) & (values <= highest)
        return np.where(probability, values >= threshold, NOT_A_PROBABILITY).astype(np.uint8)


def check_masks(driver: RawDriver, stream: Any) -> dict[str, Any]:
    """Load our PTX and compare what it makes of a million floats with numpy."""
    values = adversarial_floats(FLOATS)
    launch, source, target = _mask_kernel(driver, stream, len(values))
    source_host, target_host = _to_gpu(driver, stream, source, values), driver.page_locked(len(values))
    launch()
    driver("cuMemcpyDtoHAsync", target_host[0], target, len(values), stream)
    driver("cuStreamSynchronize", stream)
    different = np.flatnonzero(target_host[1] != expected_masks(values))
    first = [float(each) for each in values[different[:5]]]
    found = {"floats": len(values), "different": len(different), "first": repr(first)}
    _free(driver, [source, target], [source_host, target_host[0]])
    return {**found, "passed": not len(different)}


def _mask_kernel(driver: RawDriver, stream: Any, count: int) -> tuple[Callable[[], None], int, int]:
    """A launch of the kernel, and the addresses that it reads and writes."""
    module = driver("cuModuleLoadData", PTX.encode("ascii"))
    kernel = driver("cuModuleGetFunction", module, b"as_mask")
    source, target = driver.memory(4 * count), driver.memory(count)
    arguments = Arguments(
        ctypes.c_uint64(source),
        ctypes.c_uint64(target),
        ctypes.c_uint32(count),
        ctypes.c_float(MASK_THRESHOLD),
        ctypes.c_float(-ROUNDING),
        ctypes.c_float(1 + ROUNDING),
    )
    blocks = -(-count // THREADS)

    def launch() -> None:
        driver("cuLaunchKernel", kernel, blocks, 1, 1, THREADS, 1, 1, 0, stream, 0, arguments.extra)

    return launch, source, target


def _to_gpu(driver: RawDriver, stream: Any, target: int, values: npt.NDArray[Any]) -> int:
    """Copy an array to the GPU; returns the address of the page-locked memory that it went through."""
    address, host = driver.page_locked(values.nbytes)
    host[:] = values.reshape(-1).view(np.uint8)
    driver("cuMemcpyHtoDAsync", target, address, values.nbytes, stream)
    driver("cuStreamSynchronize", stream)
    return address


def _free(driver: RawDriver, device: list[int], host: list[int]) -> None:
    for address in device:
        driver("cuMemFree", address)
    for address in host:
        driver("cuMemFreeHost", address)


def check_copies_of_rectangles(driver: RawDriver, stream: Any) -> dict[str, Any]:
    """Cut rectangles out of images with Memcpy2DAsync, at pitches that cuMemAllocPitch did not choose."""
    refused: dict[str, str] = {}
    wrong: list[str] = []
    pairs = [(image, patch) for image in COLUMNS for patch in COLUMNS if patch <= image]
    for image_cols, patch_cols in pairs:
        pitches = f"{4 * image_cols} to {4 * patch_cols}"
        status, right = _copy_rectangle(driver, stream, image_cols, patch_cols)
        if status != "CUDA_SUCCESS":
            refused[pitches] = status
        elif not right:
            wrong.append(pitches)
    found = {"pitches": [4 * cols for cols in COLUMNS], "copies": len(pairs), "refused": refused, "wrong": wrong}
    return {**found, "passed": not refused and not wrong}


def _copy_rectangle(driver: RawDriver, stream: Any, image_cols: int, patch_cols: int) -> tuple[str, bool]:
    """Copy once; returns the driver's answer, and whether the patch holds what numpy cuts out."""
    rows, cols = 48, max(1, patch_cols - 3)
    first_row, first_col = 5, min(7, image_cols - cols)
    image = np.random.default_rng(image_cols).random((64, image_cols), dtype=np.float32)
    source, target = driver.memory(image.nbytes), driver.memory(4 * rows * patch_cols)
    image_host, (patch_host, patch) = _to_gpu(driver, stream, source, image), driver.page_locked(4 * rows * patch_cols)
    copy = driver.names.CUDA_MEMCPY2D()
    copy.srcMemoryType = copy.dstMemoryType = driver.names.CUmemorytype.CU_MEMORYTYPE_DEVICE
    copy.srcDevice, copy.srcPitch, copy.srcY, copy.srcXInBytes = source, 4 * image_cols, first_row, 4 * first_col
    copy.dstDevice, copy.dstPitch = target, 4 * patch_cols
    copy.WidthInBytes, copy.Height = 4 * cols, rows
    status, _ = driver.ask("cuMemcpy2DAsync", copy, stream)
    driver("cuMemcpyDtoHAsync", patch_host, target, patch.nbytes, stream)
    driver("cuStreamSynchronize", stream)
    found = patch.view(np.float32).reshape(rows, patch_cols)[:, :cols]
    right = np.array_equal(found, image[first_row : first_row + rows, first_col : first_col + cols])
    _free(driver, [source, target], [image_host, patch_host])
    return status, right


def check_graph(driver: RawDriver, stream: Any) -> dict[str, Any]:
    """Capture copies and the kernel, and replay them on other values each time."""
    count, replays = 65_536, 20
    launch, source, target = _mask_kernel(driver, stream, count)
    (given_host, given), (found_host, found) = driver.page_locked(4 * count), driver.page_locked(count)

    def enqueue() -> None:
        driver("cuMemcpyHtoDAsync", source, given_host, 4 * count, stream)
        launch()
        driver("cuMemcpyDtoHAsync", found_host, target, count, stream)

    enqueue()
    driver("cuStreamSynchronize", stream)
    driver("cuStreamBeginCapture", stream, _thread_local(driver))
    enqueue()
    graph = driver("cuStreamEndCapture", stream)
    executable = driver("cuGraphInstantiate", graph, 0)
    different, generator = 0, np.random.default_rng(1)
    for _ in range(replays):
        values = generator.random(count, dtype=np.float32)
        given[:] = values.view(np.uint8)
        driver("cuGraphLaunch", executable, stream)
        driver("cuStreamSynchronize", stream)
        different += int((found != expected_masks(values)).sum())
    plain = min(driver.seconds(stream, enqueue) for _ in range(replays))
    recorded = min(driver.seconds(stream, partial(driver, "cuGraphLaunch", executable, stream)) for _ in range(replays))
    driver("cuGraphExecDestroy", executable)
    driver("cuGraphDestroy", graph)
    _free(driver, [source, target], [given_host, found_host])
    seen = {"replays": replays, "different": different, "enqueued_s": plain, "replayed_s": recorded}
    return {**seen, "passed": not different}


def _thread_local(driver: RawDriver) -> Any:
    return driver.names.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


def see_voided_capture(driver: RawDriver, stream: Any) -> dict[str, Any]:
    """Allocate while capturing: what the driver answers then, and whether the stream works afterwards."""
    driver("cuStreamBeginCapture", stream, _thread_local(driver))
    allocated, address = driver.ask("cuMemAlloc", 1024)
    ended, _ = driver.ask("cuStreamEndCapture", stream)
    after, _ = driver.ask("cuStreamSynchronize", stream)
    if allocated == "CUDA_SUCCESS":
        driver("cuMemFree", address)
    return {"allocation": allocated, "end_of_capture": ended, "stream_afterwards": after}


def see_copy_rates(driver: RawDriver, stream: Any, sizes: dict[str, int]) -> dict[str, Any]:
    """Bytes a second from page-locked memory, back, and within the GPU; the best of five."""
    rates: dict[str, float] = {}
    for name, size in sizes.items():
        (host, _), first, second = driver.page_locked(size), driver.memory(size), driver.memory(size)
        copies = {
            "to_gpu": ("cuMemcpyHtoDAsync", first, host),
            "to_host": ("cuMemcpyDtoHAsync", host, first),
            "within_gpu": ("cuMemcpyDtoDAsync", second, first),
        }
        for direction, (function, *addresses) in copies.items():
            work = partial(driver, function, *addresses, size, stream)
            rates[f"{direction}_{name}"] = size / max(min(driver.seconds(stream, work) for _ in range(5)), 1e-9)
        _free(driver, [first, second], [host])
    return {"bytes_per_s": rates}


def see_detach() -> dict[str, Any]:
    """What cuCtxDetach does to a primary context, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gpu.expedition.detach"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    told = done.stdout.strip().splitlines()
    return {**(json.loads(told[-1]) if told else {}), "exit_code": done.returncode, "stderr": done.stderr[-2000:]}
