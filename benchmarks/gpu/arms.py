"""The ways to compute a stage that are timed against one another.

Each takes its images from the memory of the GPU and leaves its results there: copies are measured on their own.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from benchmarks.gpu.clock import Run
from benchmarks.gpu.engine_runs import open_onnxruntime_cuda, open_tensorrt
from benchmarks.gpu.network import Network, Task
from cascade_rt.common.tensors import Precision
from cascade_rt.engines.pytorch import tf32

Arithmetic = Literal["fp32", "tf32", "fp16"]
"""What most of the multiplications are done in, and with it the peak that they are held against."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to compute a stage."""

    name: str
    arithmetic: Arithmetic
    open: Callable[[Network, Task], Run]
    """Prepares it for a task; raises where it cannot be had."""
    graph: Precision | None = None
    """The exported graph that it runs; None: the network in PyTorch."""


def open_pytorch(
    network: Network, task: Task, *, allow_tf32: bool = False, amp: bool = False, compiled: str | None = None
) -> Run:
    """PyTorch, with cuDNN's choice of kernels by trial: what is best for images of one size.

    Args:
        network: The network.
        task: The task.
        allow_tf32: Whether float32 may be rounded to TF32.
        amp: Automatic mixed precision, float16, with channels last.
        compiled: The mode of `torch.compile`; none: eager.
    """
    graph: Any = network.stage(task.stage)
    image = network.image(task)
    if amp:
        # A copy: the others share the network as it is.
        graph = copy.deepcopy(graph).to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)
    if compiled is not None:
        # A whole graph or an error: a part that is left out of it would be timed without a word.
        graph = torch.compile(graph, mode=compiled, dynamic=False, fullgraph=True)
    device = network.device.type

    def run() -> object:
        if compiled is not None:
            # The results of the last run may be overwritten.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with (
            torch.inference_mode(),
            kernels_by_trial(),
            tf32(allowed=allow_tf32),
            torch.autocast(device, torch.float16, enabled=amp),
        ):
            return graph(image)

    return run


@contextmanager
def kernels_by_trial() -> Iterator[None]:
    """Let cuDNN choose its kernels by trial."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


GRAPHS, TUNED = "reduce-overhead", "max-autotune-no-cudagraphs"
"""Modes of `torch.compile`: kernels recorded as CUDA graphs; kernels chosen by trial."""

BASELINE = Arm("pytorch-eager-fp32", "fp32", open_pytorch)
"""What all are compared with."""

ARMS: tuple[Arm, ...] = (
    BASELINE,
    Arm("pytorch-eager-tf32", "tf32", partial(open_pytorch, allow_tf32=True)),
    Arm("pytorch-amp", "fp16", partial(open_pytorch, allow_tf32=True, amp=True)),
    Arm("pytorch-compiled-graphs-fp32", "fp32", partial(open_pytorch, compiled=GRAPHS)),
    Arm("pytorch-compiled-graphs-amp", "fp16", partial(open_pytorch, allow_tf32=True, amp=True, compiled=GRAPHS)),
    Arm("pytorch-compiled-tuned-amp", "fp16", partial(open_pytorch, allow_tf32=True, amp=True, compiled=TUNED)),
    Arm("onnxruntime-cuda-fp32", "fp32", open_onnxruntime_cuda, graph="fp32"),
    Arm("onnxruntime-cuda-tf32", "tf32", partial(open_onnxruntime_cuda, allow_tf32=True), graph="fp32"),
    Arm("onnxruntime-cuda-fp16", "fp16", partial(open_onnxruntime_cuda, precision="fp16"), graph="fp16"),
    Arm(
        "onnxruntime-cuda-by-trial-fp16",
        "fp16",
        partial(open_onnxruntime_cuda, precision="fp16", by_trial=True),
        graph="fp16",
    ),
    Arm("tensorrt-fp32", "fp32", open_tensorrt, graph="fp32"),
    Arm("tensorrt-fp16", "fp16", partial(open_tensorrt, precision="fp16"), graph="fp16"),
    Arm("tensorrt-graphs-fp32", "fp32", partial(open_tensorrt, recorded=True), graph="fp32"),
    Arm(
        "tensorrt-graphs-fp16",
        "fp16",
        partial(open_tensorrt, precision="fp16", recorded=True),
        graph="fp16",
    ),
)
