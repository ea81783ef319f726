"""What the GPU can do at best: matrix products and copies, measured and not read off a data sheet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.clock import WARM_UPS, Clock, Run
from benchmarks.gpu.lines import reason_of
from cascade_rt.engines.pytorch import tf32

RUNS = 30
MATRIX_SIDE = 8192
COPY_BYTES = 1 << 30

TFLOPS, GIGABYTES = "TFLOP/s", "GB/s"


@dataclass(frozen=True, slots=True)
class Peak:
    """One thing that the GPU is asked to do at its best."""

    name: str
    unit: str
    prepare: Callable[[str], tuple[Run, float]]
    """Takes the device; returns a run and how many operations or bytes it is."""


def matrix_product(dtype: torch.dtype, *, allow_tf32: bool = False, side: int = MATRIX_SIDE) -> Callable[[str], Any]:
    """A product of two square matrices of random numbers; zeros would draw less power and be faster."""

    def prepare(device: str) -> tuple[Run, float]:
        first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        product = torch.empty_like(first)

        def run() -> None:
            with tf32(allowed=allow_tf32):
                torch.matmul(first, second, out=product)

        return run, 2.0 * side**3

    return prepare


def device_copy(device: str) -> tuple[Run, float]:
    """A copy inside the memory of the GPU; each byte is read and written, and counted twice."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * COPY_BYTES


def host_copy(device: str) -> tuple[Run, float]:
    """A copy from page-locked memory of the host to the GPU."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty_like(source, device=device)
    return lambda: target.copy_(source, non_blocking=True), float(COPY_BYTES)


PEAKS = (
    Peak("matmul_fp32", TFLOPS, matrix_product(torch.float32)),
    Peak("matmul_tf32", TFLOPS, matrix_product(torch.float32, allow_tf32=True)),
    Peak("matmul_fp16", TFLOPS, matrix_product(torch.float16)),
    Peak("copy_device_to_device", GIGABYTES, device_copy),
    Peak("copy_host_to_device_pinned", GIGABYTES, host_copy),
)


def measure_peaks(clock: Clock, device: str, peaks: tuple[Peak, ...] = PEAKS) -> Iterator[dict[str, Any]]:
    """Measure each; one that raises has a reason in place of a value."""
    for peak in peaks:
        line: dict[str, Any] = {"name": peak.name, "unit": peak.unit, "value": None, "median_s": None, "reason": None}
        try:
            run, amount = peak.prepare(device)
            clock.seconds(run, WARM_UPS)
            median = float(np.median(clock.seconds(run, RUNS)))
            scale = 1e12 if peak.unit == TFLOPS else 1e9
            line |= {"value": amount / median / scale, "median_s": median}
        except Exception as error:  # noqa: BLE001  one that fails is a line too
            line["reason"] = reason_of(error)
        yield line
