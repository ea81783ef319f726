"""The first two convolutions of stage 1, at full resolution: in single, in half, and in half on halves of the numbers.

The graphs in half precision keep the convolutions near the image in float32, where Tensor Cores do not compute. The
other way is to give a convolution the high and the low half of its input as channels of their own, and to let it add
up: float16 multiplies, float32 sums, and about 21 bits of the input count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.arms import kernels_by_trial
from benchmarks.gpu.clock import Clock, Run, Turns, race, statistics_of
from benchmarks.gpu.deadline import Deadline
from cascade_rt.engines.pytorch import tf32

BATCH = 4
KERNEL = 3
ERROR_SIDE = 96
"""Pixels of the images that the error is computed on, in float64."""

Parts = Callable[[Tensor], list[Tensor]]
"""Splits a float32 tensor into what stands side by side as channels."""


def whole(tensor: Tensor) -> list[Tensor]:
    """The tensor itself."""
    return [tensor]


def halves(tensor: Tensor) -> list[Tensor]:
    """The high and the low half: their sum is the tensor to about 21 bits."""
    high = tensor.half()
    return [high, (tensor - high.float()).half()]


def high_low_high(tensor: Tensor) -> list[Tensor]:
    """For weights that are split as well: high, low, high."""
    high, low = halves(tensor)
    return [high, low, high]


def high_high(tensor: Tensor) -> list[Tensor]:
    """Weights that go with `halves`: the same for both."""
    high, _ = halves(tensor)
    return [high, high]


def high_high_low(tensor: Tensor) -> list[Tensor]:
    """Weights that go with `high_low_high`."""
    high, low = halves(tensor)
    return [high, high, low]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute a convolution."""

    name: str
    dtype: torch.dtype
    of_input: Parts = whole
    of_weight: Parts = whole
    allow_tf32: bool = False
    channels_last: bool = False


WAYS: tuple[Way, ...] = (
    Way("fp32", torch.float32),
    Way("tf32", torch.float32, allow_tf32=True),
    Way("fp16", torch.float16),
    Way("fp16-channels-last", torch.float16, channels_last=True),
    Way("two-halves", torch.float16, halves, high_high, channels_last=True),
    Way("three-halves", torch.float16, high_low_high, high_high_low, channels_last=True),
)


def measure_convolutions(
    width: int, side: int, device: str, clock: Clock, turns: Turns, deadline: Deadline
) -> Iterator[dict[str, Any]]:
    """Time each way for both convolutions, in turns; the halves are made beforehand.

    Args:
        width: Channels that the convolutions write.
        side: Height and width of the images, in pixels.
        device: Where they are.
        clock: What measures.
        turns: How often and how long.
        deadline: After it none is begun.
    """
    for name, channels in (("image", 1), ("features", width)):
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(BATCH, channels, side, side, generator=generator).to(device)
        weight = torch.randn(width, channels, KERNEL, KERNEL, generator=generator).to(device)
        weight /= (channels * KERNEL**2) ** 0.5
        raced = race({way.name: prepared(way, image, weight) for way in WAYS}, clock, turns, deadline)
        work = BATCH * side**2 * weight.numel()
        for way in WAYS:
            line: dict[str, Any] = {"name": f"{name}-{way.name}", "channels": [channels, width], "side": side}
            line |= {"batch": BATCH, "multiplications": work, "median_s": None, "reason": raced.reasons.get(way.name)}
            if way.name in raced.rounds:
                line |= statistics_of(raced.rounds[way.name])
                line |= relative_error(way, image, weight)
            yield line


def prepared(way: Way, image: Tensor, weight: Tensor) -> Run:
    """A run of a way on an image `[batch, in, row, col]` with a weight `[out, in, row, col]`."""
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    given, factor = (each.contiguous(memory_format=layout) for each in _factors(way, image, weight))

    def run() -> Tensor:
        with torch.inference_mode(), kernels_by_trial(), tf32(allowed=way.allow_tf32):
            return functional.conv2d(given, factor, padding=KERNEL // 2)

    return run


def _factors(way: Way, image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What a way multiplies: an image and a weight in its own arithmetic."""
    given = torch.cat([part.to(way.dtype) for part in way.of_input(image)], dim=1)
    return given, torch.cat([part.to(way.dtype) for part in way.of_weight(weight)], dim=1)


def relative_error(way: Way, image: Tensor, weight: Tensor) -> dict[str, float]:
    """How far the rounding of image and weight moves the result, as a share of the largest value.

    The rounding of the result itself, and to TF32, are left out.
    """
    small = image[:1, :, :ERROR_SIDE, :ERROR_SIDE]
    exact = functional.conv2d(small.double(), weight.double(), padding=KERNEL // 2)
    given, factor = _factors(way, small, weight)
    found = functional.conv2d(given.double(), factor.double(), padding=KERNEL // 2)
    return {"relative_error": float((found - exact).abs().max() / exact.abs().max())}
