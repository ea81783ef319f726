"""Engines: the libraries that can run a stage, behind one contract, and the one place that chooses between them."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal, get_args

from cascade_rt.bundle import Bundle
from cascade_rt.engines.base import StageEngine
from cascade_rt.engines.packages import import_package
from cascade_rt.errors import BackendUnavailableError, UsageError
from cascade_rt.tensors import Precision, Stage

Backend = Literal["onnxruntime", "pytorch"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
"""All backends, best first."""
BackendChoice = Literal["auto", "onnxruntime", "pytorch"]
PrecisionChoice = Literal["auto", "fp32", "fp16"]


@dataclass(frozen=True, slots=True)
class Engines:
    """Both stages on one backend."""

    stage1: StageEngine
    stage2: StageEngine
    passed_over: tuple[str, ...] = ()
    """Why better backends were not taken."""


def open_engine(bundle: Bundle, stage: Stage, backend: Backend, precision: Precision = "fp32") -> StageEngine:
    """Open one stage of a bundle on one backend.

    Raises:
        BackendUnavailableError: The backend cannot run on this machine.
        BundleError: The bundle has no graphs of this precision.
        UsageError: The backend has no such precision.
    """
    if backend == "onnxruntime":
        from cascade_rt.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, stage, precision)
    if precision != "fp32":
        raise UsageError(f"backend 'pytorch' is the float32 baseline and has no {precision}; choose another backend")
    for package in ("torch", "safetensors"):
        import_package(package, backend=backend, extra="train")
    from cascade_rt.engines.pytorch import PyTorchEngine

    return PyTorchEngine.of_bundle(bundle, stage)


def _open_both(bundle: Bundle, backend: Backend, precision: Precision) -> Engines:
    with ExitStack() as undo:
        stage1 = open_engine(bundle, "stage1", backend, precision)
        undo.callback(stage1.close)
        stage2 = open_engine(bundle, "stage2", backend, precision)
        undo.pop_all()
    return Engines(stage1, stage2)


def open_engines(bundle: Bundle, backend: BackendChoice = "auto", precision: PrecisionChoice = "auto") -> Engines:
    """Open both stages.

    Args:
        bundle: The bundle.
        backend: `auto` takes the first that opens and says why those before it did not.
        precision: `auto` takes what is fastest on the backend, of what the bundle has: on a CPU fp32.

    Raises:
        BackendUnavailableError: The backend asked for, or every backend, cannot run on this machine.
        BundleError: The bundle has no graphs of this precision.
        UsageError: The backend asked for has no such precision.
    """
    if backend != "auto":
        return _open_both(bundle, backend, _precision(precision))
    passed_over: list[str] = []
    for candidate in BACKENDS:
        try:
            return replace(_open_both(bundle, candidate, _precision(precision)), passed_over=tuple(passed_over))
        except BackendUnavailableError as error:
            passed_over.append(str(error))
    raise BackendUnavailableError("no engine can run here: " + "; ".join(passed_over))


def _precision(choice: PrecisionChoice) -> Precision:
    return "fp32" if choice == "auto" else choice
