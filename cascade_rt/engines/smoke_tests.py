"""Smoke-test each library on a convolution with a known result: whether it works, not just whether it is installed."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cascade_rt.common.packages import backend_named, import_package, pip_install
from cascade_rt.engines.base import Array
from cascade_rt.engines.nvidia import find_gpu, require_gpu
from cascade_rt.engines.onnxruntime_session import (
    CUDA,
    TENSORRT,
    Provider,
    open_cpu_session,
    open_gpu_session,
    run_bound,
)
from cascade_rt.engines.openvino_session import Part, open_parts
from cascade_rt.errors import BackendUnavailableError, EngineError

SIDE = 8
"""Number of rows and of columns of the image."""
GRAPH_PATH = Path(__file__).parents[1] / "assets" / "doctor.onnx"
"""A sum over 3 x 3 pixels, made by `cascade_rt_export.doctor_graph`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A library and how to test it."""

    name: str
    run: Callable[[], str]
    """Runs or builds the graph, and returns in a few words on what.

    Raises BackendUnavailableError if it cannot run, EngineError if the result is wrong, and ImportError or OSError if a
    package is broken.
    """
    extra: str
    """The extra of cascade-rt that installs it."""
    needs_gpu: bool = False


def image() -> Array:
    """Return an image `[1, 1, row, col]` of ones."""
    return np.ones((1, 1, SIDE, SIDE), dtype=np.float32)


def check_sums(sums: Array) -> None:
    """Raise EngineError if the result is wrong. It should be 9 inside, 6 along the edges and 4 in the corners."""
    side = np.array([2, *[3] * (SIDE - 2), 2], dtype=np.float32)
    if not np.array_equal(sums, np.outer(side, side)[None, None]):
        raise EngineError("it computes a convolution incorrectly; do not use it, reinstall it")


def _openvino() -> str:
    (model,) = open_parts(GRAPH_PATH.read_bytes(), "the doctor's graph", [Part(("image",), ("sums",), "fp32")])
    check_sums(model({"image": image()})["sums"])
    return "on the CPU"


def _onnxruntime_cpu() -> str:
    session = open_cpu_session(GRAPH_PATH.read_bytes(), "the doctor's graph")
    check_sums(session.run(["sums"], {"image": image()})[0])
    return "on the CPU"


def _onnxruntime_gpu(name: str, provider: Provider) -> str:
    gpu = require_gpu(name)
    session = open_gpu_session(GRAPH_PATH.read_bytes(), "the doctor's graph", provider, name)
    errors: Any = import_package(
        "onnxruntime.capi.onnxruntime_pybind11_state", needed_by=backend_named(name), extra="gpu"
    )
    try:
        (sums,) = run_bound(session, {"image": image()}, ["sums"], "cuda")
    except (errors.Fail, errors.EPFail, errors.RuntimeException, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(f"{provider.name} fails on {gpu.name} ({reason})") from error
    check_sums(sums)
    return f"on {gpu.name}"


def _tensorrt() -> str:
    gpu = require_gpu("tensorrt")
    tensorrt = import_package("tensorrt", needed_by=backend_named("tensorrt"), extra="tensorrt")
    import_package("pycuda.driver", needed_by=backend_named("tensorrt"), extra="tensorrt")
    from cascade_rt.engines.tensorrt_build import build_plan
    from cascade_rt.engines.tensorrt_session import TensorRtSession

    session = TensorRtSession(build_plan(tensorrt, GRAPH_PATH.read_bytes()))
    try:
        for _ in range(3):  # plain run, capture as a CUDA graph, replay
            check_sums(session.run({"image": image()})["sums"])
        graphs = "on" if session.records_graphs else "off: cuda-bindings is not installed"
    finally:
        session.close()
    return f"on {gpu.name}, CUDA graphs {graphs}"


def _tensorrt_rtx() -> str:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise BackendUnavailableError(f"it is not installed; run: {pip_install('rtx')}")
    tensorrt = importlib.import_module("tensorrt_rtx")
    from cascade_rt.engines.tensorrt_build import build_plan

    def for_ada(config: Any) -> None:
        """Set a target GPU. Without one, the build would need a GPU in this machine."""
        config.num_compute_capabilities = 1
        config.set_compute_capability(tensorrt.ComputeCapability.SM89, 0)

    plan = build_plan(tensorrt, GRAPH_PATH.read_bytes(), configure=for_ada)
    return f"builds engines ({len(plan)} bytes for compute capability 8.9), which needs no GPU; not run"


def _pytorch(device: str) -> str:
    import_package("torch", needed_by=backend_named("pytorch"), extra="train")
    import torch

    name = "the CPU"
    if device == "cuda":
        name = find_gpu().name
        if not torch.cuda.is_available():
            raise BackendUnavailableError(
                f"PyTorch {torch.__version__} was built without CUDA, or does not find the GPU; "
                "run: pip install --force-reinstall torch"
            )
    ones = torch.ones((1, 1, 3, 3), device=device)
    try:
        sums = torch.nn.functional.conv2d(torch.from_numpy(image()).to(device), ones, padding=1)
        check_sums(sums.cpu().numpy())
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(f"PyTorch fails on {name} ({reason})") from error
    return f"on {name}"


TRIALS = (
    Trial("onnxruntime", _onnxruntime_cpu, "cpu"),
    Trial("openvino", _openvino, "openvino"),
    Trial("onnxruntime-cuda", partial(_onnxruntime_gpu, "onnxruntime-cuda", CUDA), "gpu", needs_gpu=True),
    Trial("onnxruntime-tensorrt", partial(_onnxruntime_gpu, "onnxruntime-tensorrt", TENSORRT), "gpu", needs_gpu=True),
    Trial("tensorrt", _tensorrt, "tensorrt", needs_gpu=True),
    Trial("tensorrt-rtx", _tensorrt_rtx, "rtx"),
    # Last, because PyTorch loads CUDA libraries, which later trials would then find loaded already.
    Trial("pytorch", partial(_pytorch, "cpu"), "train"),
    Trial("pytorch-cuda", partial(_pytorch, "cuda"), "train", needs_gpu=True),
)
