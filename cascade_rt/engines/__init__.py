"""Engines: the libraries that can run a stage, behind one contract, and the one place that chooses between them."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, cast, get_args

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import EnginePrecision, Precision, Stage
from cascade_rt.engines.base import StageEngine
from cascade_rt.engines.nvidia import find_gpu
from cascade_rt.engines.openvino_session import OpenVinoPrecision
from cascade_rt.engines.out_of_memory import named_out_of_memory
from cascade_rt.engines.packages import import_package
from cascade_rt.engines.plans import PlanSource, no_plans
from cascade_rt.engines.self_test import self_test
from cascade_rt.engines.stage_bridge import HostBridge, StageBridge
from cascade_rt.engines.turns import Turns, another_process
from cascade_rt.errors import (
    BackendUnavailableError,
    CascadeError,
    EngineBuildError,
    EngineError,
    OutputError,
    UsageError,
)

_log = logging.getLogger(__name__)

Backend = Literal["tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime", "pytorch"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
"""All backends, best first."""
GPU_BACKENDS: tuple[Backend, ...] = ("tensorrt", "onnxruntime-cuda")
"""Those that run on an NVIDIA GPU or not at all."""
BackendChoice = Literal["auto", "tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime", "pytorch"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "bf16"]
PRECISIONS_OF: Mapping[Backend, tuple[EnginePrecision, ...]] = {
    "tensorrt": ("fp32", "fp16"),
    "onnxruntime-cuda": ("fp32", "fp16"),
    "openvino": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "fp16"),
    "pytorch": ("fp32",),
}
"""What each backend computes in; on this machine and with this bundle it may be less."""
_CANNOT_OPEN = (BackendUnavailableError, EngineBuildError, OutputError)


@dataclass(frozen=True, slots=True)
class Engines:
    """Both stages on one backend; who opened them closes them, or uses them in a `with` block."""

    stage1: StageEngine
    stage2: StageEngine
    passed_over: tuple[str, ...] = ()
    """Why better backends were not taken; one sentence for all that need a GPU where there is none."""
    turns: Turns = field(default_factory=Turns, repr=False, compare=False)
    """Whose turn it is to run them, for code that may be called from several threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise another_process()

    def __deepcopy__(self, _: object) -> NoReturn:
        raise UsageError("open engines cannot be copied; share them, threads take turns, or open the bundle again")

    def close(self) -> None:
        """Free both, when nobody runs them any more; a process that did not open them leaves them alone."""
        if self.turns.elsewhere:
            return
        with self.turns.take(), closing(self.stage2):
            self.stage1.close()

    def bridge(self) -> StageBridge[Any]:
        """What runs both stages for one scan: within the GPU where TensorRT runs both, else through the host."""
        from cascade_rt.engines.tensorrt_engine import TensorRtEngine

        if isinstance(self.stage1, TensorRtEngine) and isinstance(self.stage2, TensorRtEngine):
            from cascade_rt.engines.tensorrt_bridge import DeviceBridge

            return DeviceBridge(self.stage1, self.stage2)
        return HostBridge(self.stage1, self.stage2)


def cannot_open(error: CascadeError) -> bool:
    """Whether an error says that one backend cannot be opened here, and nothing of the others.

    So do engines that cannot be built or that what is built has no place for, and a library that refuses to run. One
    that has run and computed wrongly (`EngineError` with a code of its own) does not.
    """
    refused = isinstance(error, EngineError) and error.code == EngineError.default_code
    return refused or isinstance(error, _CANNOT_OPEN)


def open_engine(
    bundle: Bundle, stage: Stage, backend: Backend, precision: EnginePrecision = "fp32", plans: PlanSource = no_plans
) -> StageEngine:
    """Open one stage of a bundle on one backend.

    Args:
        bundle: The bundle.
        stage: The stage.
        backend: What computes.
        precision: What it computes in.
        plans: Where `tensorrt` gets its engines from; other backends ask nothing of it.

    Raises:
        BackendUnavailableError: The backend cannot run on this machine.
        BundleError: The bundle has no graphs of this precision.
        UsageError: The backend has no such precision.
    """
    if precision not in PRECISIONS_OF[backend]:
        raise UsageError(f"backend {backend!r} {_other_precisions(backend, precision)}; choose another backend")
    if backend == "openvino":
        from cascade_rt.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, stage, cast(OpenVinoPrecision, precision))
    precision = cast(Precision, precision)
    if backend == "tensorrt":
        from cascade_rt.engines.tensorrt_engine import TensorRtEngine

        return TensorRtEngine.of_bundle(bundle, stage, precision, plans)
    if backend == "onnxruntime-cuda":
        from cascade_rt.engines.onnxruntime_engine import OnnxRuntimeGpuEngine

        return OnnxRuntimeGpuEngine(bundle, stage, precision)
    if backend == "onnxruntime":
        from cascade_rt.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, stage, precision)
    for package in ("torch", "safetensors"):
        import_package(package, backend=backend, extra="train")
    from cascade_rt.engines.pytorch import PyTorchEngine

    return PyTorchEngine.of_bundle(bundle, stage)


def open_engines(
    bundle: Bundle,
    backend: BackendChoice = "auto",
    precision: PrecisionChoice = "auto",
    plans: PlanSource = no_plans,
) -> Engines:
    """Open both stages.

    Args:
        bundle: The bundle.
        backend: `auto` takes the first that really runs and says why those before it did not.
        precision: `auto` takes what is fastest on the backend, of what the bundle has: on a CPU fp32, on a GPU fp16.
        plans: Where `tensorrt` gets its engines from.

    Raises:
        BackendUnavailableError: The backend asked for, or every backend, cannot run on this machine.
        BundleError: The bundle has no graphs of this precision, or one that the library cannot run.
        EngineBuildError: The backend asked for cannot build its engine.
        OutputError: The backend asked for has no place for the engine that it builds.
        EngineError: The backend asked for refuses to run; or an engine does not compute what was exported
            (`E_SELF_TEST`), and `auto` does not try the next then.
        UsageError: The backend asked for has no such precision.
    """
    if backend == "auto":
        engines = _open_best(bundle, precision, plans)
    else:
        engines = _open_both(bundle, backend, precision, plans)
    info = engines.stage1.info
    _log.info("opened %s on %s %s in %s on %s", bundle.path, info.backend, info.version, info.precision, info.device)
    for reason in engines.passed_over:
        _log.info("a better engine was passed over: %s", reason)
    return engines


def _open_best(bundle: Bundle, precision: PrecisionChoice, plans: PlanSource) -> Engines:
    candidates, passed_over = _candidates()
    for candidate in candidates:
        if precision not in ("auto", *PRECISIONS_OF[candidate]):
            passed_over.append(f"backend {candidate!r} {_other_precisions(candidate, precision)}")
            continue
        try:
            return replace(_open_both(bundle, candidate, precision, plans), passed_over=tuple(passed_over))
        except CascadeError as error:
            if not cannot_open(error):
                raise
            passed_over.append(str(error))
    raise BackendUnavailableError("no engine can run here: " + "; ".join(passed_over))


def _candidates() -> tuple[tuple[Backend, ...], list[str]]:
    """The backends worth opening, and why not all: most machines have no GPU, and one short sentence says that."""
    try:
        find_gpu()
    except BackendUnavailableError as error:
        names = " and ".join(GPU_BACKENDS)
        return tuple(each for each in BACKENDS if each not in GPU_BACKENDS), [f"{names} need an NVIDIA GPU: {error}"]
    return BACKENDS, []


def _open_both(bundle: Bundle, backend: Backend, choice: PrecisionChoice, plans: PlanSource) -> Engines:
    precision = _precision(bundle, backend, choice)
    with ExitStack() as undo:
        # Outermost, for memory may be short wherever a graph or the golden case is read.
        undo.enter_context(named_out_of_memory("the bundle", backend))
        stage1 = open_engine(bundle, "stage1", backend, precision, plans)
        undo.callback(stage1.close)
        stage2 = open_engine(bundle, "stage2", backend, precision, plans)
        undo.callback(stage2.close)
        # A GPU library loads parts of itself in the first run; whether it works at all is known only after that.
        golden = bundle.read_golden()
        for engine in (stage1, stage2):
            self_test(engine, golden[engine.stage])
        undo.pop_all()
    return Engines(stage1, stage2)


def _other_precisions(backend: Backend, precision: str) -> str:
    return f"computes in {' and '.join(PRECISIONS_OF[backend])}, not in {precision}"


def _precision(bundle: Bundle, backend: Backend, choice: PrecisionChoice) -> EnginePrecision:
    """What `auto` stands for: on a CPU fp32; fp16 is slower there, and bf16 is faster but finds other voxels."""
    if choice != "auto":
        return choice
    return bundle.precisions[-1] if backend in GPU_BACKENDS else "fp32"
