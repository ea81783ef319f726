"""Engines: the libraries that can run a stage, behind one contract, and the one place that chooses between them."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal, get_args

from cascade_rt.bundle import Bundle
from cascade_rt.engines.base import StageEngine
from cascade_rt.engines.packages import import_package
from cascade_rt.errors import BackendUnavailableError
from cascade_rt.tensors import Stage

Backend = Literal["onnxruntime", "pytorch"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
"""All backends, best first."""
BackendChoice = Literal["auto", "onnxruntime", "pytorch"]


@dataclass(frozen=True, slots=True)
class Engines:
    """Both stages on one backend."""

    stage1: StageEngine
    stage2: StageEngine
    passed_over: tuple[str, ...] = ()
    """Why better backends were not taken."""


def open_engine(bundle: Bundle, stage: Stage, backend: Backend) -> StageEngine:
    """Open one stage of a bundle on one backend.

    Raises:
        BackendUnavailableError: The backend cannot run on this machine.
    """
    if backend == "onnxruntime":
        from cascade_rt.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, stage)
    for package in ("torch", "safetensors"):
        import_package(package, backend=backend, extra="train")
    from cascade_rt.engines.pytorch import PyTorchEngine

    return PyTorchEngine.of_bundle(bundle, stage)


def _open_both(bundle: Bundle, backend: Backend) -> Engines:
    with ExitStack() as undo:
        stage1 = open_engine(bundle, "stage1", backend)
        undo.callback(stage1.close)
        stage2 = open_engine(bundle, "stage2", backend)
        undo.pop_all()
    return Engines(stage1, stage2)


def open_engines(bundle: Bundle, backend: BackendChoice = "auto") -> Engines:
    """Open both stages; `auto` takes the first backend that opens and says why those before it did not.

    Raises:
        BackendUnavailableError: The backend asked for, or every backend, cannot run on this machine.
    """
    if backend != "auto":
        return _open_both(bundle, backend)
    passed_over: list[str] = []
    for candidate in BACKENDS:
        try:
            return replace(_open_both(bundle, candidate), passed_over=tuple(passed_over))
        except BackendUnavailableError as error:
            passed_over.append(str(error))
    raise BackendUnavailableError("no engine can run here: " + "; ".join(passed_over))
