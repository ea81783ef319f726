"""PyTorch, eager: what the GPU does at best, the convolutions near the image, and the networks in three arithmetics."""

from typing import get_args

import torch

from benchmarks.gpu.arms import ARMS, Arithmetic, Arm
from benchmarks.gpu.clock import Clock, Turns
from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.device import clock_of, own_stream
from benchmarks.gpu.expedition.convolutions import measure_convolutions
from benchmarks.gpu.expedition.parts import Write
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.network import random_network, usual_side
from benchmarks.gpu.peaks import PEAKS, TFLOPS, Peak, matrix_product, measure_peaks
from benchmarks.gpu.timings import time_stages
from cascade_rt.config import CascadeConfig

EAGER = ("pytorch-eager-fp32", "pytorch-eager-tf32", "pytorch-amp")
SMALL_PEAKS = (Peak("matmul_fp32", TFLOPS, matrix_product(torch.float32, side=256)),)
"""For the CPU, which only tries the code."""


def run(settings: Settings, write: Write, deadline: Deadline) -> None:
    """Measure; after the deadline nothing more is begun.

    Raises:
        BackendUnavailableError: PyTorch cannot use the GPU.
    """
    clock, turns = clock_of(settings.device), Turns(settings.rounds, settings.turn_seconds)
    with own_stream(settings.device):
        peaks = _peaks(settings, clock, write)
        side = settings.side or usual_side("stage1", CascadeConfig(base_width=settings.base_width))
        for line in measure_convolutions(settings.base_width, side, settings.device, clock, turns, deadline):
            write("convolution", line)
        network = random_network(settings.base_width, settings.device)
        lines = time_stages(
            network,
            settings.batches,
            clock,
            turns,
            peaks=peaks,
            arms=arms_named(EAGER),
            side=settings.side,
            deadline=deadline,
        )
        for line in lines:
            write("timing", line)


def _peaks(settings: Settings, clock: Clock, write: Write) -> dict[Arithmetic, float]:
    """Measure what the device does at best; returns the products of matrices, in TFLOP/s."""
    found: dict[Arithmetic, float] = {}
    for line in measure_peaks(clock, settings.device, SMALL_PEAKS if settings.device == "cpu" else PEAKS):
        write("peak", line)
        for arithmetic in get_args(Arithmetic):
            if line["name"] == f"matmul_{arithmetic}" and line["value"] is not None:
                found[arithmetic] = line["value"]
    return found


def arms_named(names: tuple[str, ...]) -> list[Arm]:
    """The arms of some names, in their usual order."""
    return [arm for arm in ARMS if arm.name in names]
