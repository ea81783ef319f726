"""What the processors can do at best: matrix products, convolutions and copies, measured in this run."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.gpu.clock import Run, WallClock
from benchmarks.gpu.peaks import GIGABYTES, TFLOPS, Peak, device_copy, matrix_product, measure_peaks

MATRIX_SIDES = (1024, 2048)
CONVOLUTIONS = ((4, 64, 128), (4, 128, 64), (2, 256, 64))
"""Batch, channels and side of images on which convolutions of 3 x 3 are fast."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def convolution(dtype: torch.dtype, batch: int, channels: int, side: int) -> Callable[[str], tuple[Run, float]]:
    """A convolution of 3 x 3 with as many channels in as out, channels last."""

    def prepare(device: str) -> tuple[Run, float]:
        layout = {"device": device, "dtype": dtype}
        image = torch.randn(batch, channels, side, side, **layout).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, **layout).to(memory_format=torch.channels_last)

        def run() -> None:
            with torch.inference_mode():
                F.conv2d(image, weight, padding=1)

        return run, 2.0 * batch * channels * channels * 9 * side * side

    return prepare


def processor_peaks() -> tuple[Peak, ...]:
    """All that is measured; the best of an arithmetic is its peak."""
    products = [
        Peak(f"matmul_{name}_{side}", TFLOPS, matrix_product(dtype, side=side))
        for name, dtype in TYPES.items()
        for side in MATRIX_SIDES
    ]
    convolutions = [
        Peak(f"conv3x3_{name}_{'x'.join(map(str, shape))}", TFLOPS, convolution(dtype, *shape))
        for name, dtype in TYPES.items()
        for shape in CONVOLUTIONS
    ]
    return (*products, *convolutions, Peak("copy", GIGABYTES, device_copy))


def measure_processor() -> list[dict[str, Any]]:
    """Measure all; medians of thirty runs."""
    return list(measure_peaks(WallClock(), "cpu", processor_peaks()))


def best(lines: list[dict[str, Any]]) -> Mapping[str, float]:
    """Operations a second of each arithmetic at best, and bytes a second of `copy`."""
    found: dict[str, float] = {}
    for line in lines:
        if line["value"] is None:
            continue
        name = line["name"].split("_")[1] if line["unit"] == TFLOPS else line["name"]
        scale = 1e12 if line["unit"] == TFLOPS else 1e9
        found[name] = max(found.get(name, 0.0), line["value"] * scale)
    return found
