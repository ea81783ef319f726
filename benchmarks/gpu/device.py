"""The device that is measured, and the clock that goes with it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from benchmarks.gpu.clock import Clock, CudaClock, WallClock
from cascade_rt.engines.nvidia import Gpu, find_gpu
from cascade_rt.errors import BackendUnavailableError


def require_cuda() -> Gpu:
    """The GPU, where PyTorch can use it.

    Raises:
        BackendUnavailableError: There is none, or PyTorch was built without CUDA.
    """
    try:
        gpu = find_gpu()
    except BackendUnavailableError as error:
        raise BackendUnavailableError(f"this benchmark needs an NVIDIA GPU, and {error}") from None
    if not torch.cuda.is_available():
        raise BackendUnavailableError(f"PyTorch {torch.__version__} does not find the GPU; install one built for CUDA")
    return gpu


def clock_of(device: str) -> Clock:
    """What measures runs on a device.

    Raises:
        BackendUnavailableError: It is `cuda`, and PyTorch cannot use it.
    """
    if device == "cpu":
        return WallClock()
    require_cuda()
    return CudaClock()


def own_stream(device: str = "cuda") -> AbstractContextManager[Any]:
    """A stream for all work; the default one is none that ONNX Runtime can be told to use."""
    if device == "cpu":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]
