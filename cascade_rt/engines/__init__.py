"""Engines: the libraries that can run a stage, behind one contract, and the code that chooses between them."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, cast, get_args

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.arguments import check_argument, check_function
from cascade_rt.common.packages import backend_named, import_package
from cascade_rt.common.tensors import EnginePrecision, Precision, Stage
from cascade_rt.engines.base import PRECISION_DOUBT, StageEngine
from cascade_rt.engines.nvidia import check_device, find_gpu
from cascade_rt.engines.openvino_session import OpenVinoPrecision
from cascade_rt.engines.out_of_memory import named_out_of_memory
from cascade_rt.engines.plans import PlanSource, no_plans
from cascade_rt.engines.self_test import self_test
from cascade_rt.engines.splitting import SplittingEngine
from cascade_rt.engines.stage_bridge import HostBridge, StageBridge
from cascade_rt.engines.turns import Turns, another_process
from cascade_rt.errors import (
    BackendUnavailableError,
    CascadeError,
    EngineBuildError,
    EngineError,
    InputWarning,
    OutputError,
    UsageError,
)

_log = logging.getLogger(__name__)

Backend = Literal["tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime", "pytorch"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
"""All backends, best first."""
GPU_BACKENDS: tuple[Backend, ...] = ("tensorrt", "onnxruntime-cuda")
"""The backends that require an NVIDIA GPU."""
BackendChoice = Literal["auto", "tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime", "pytorch"]
PrecisionChoice = Literal["auto", "fp32", "fp16", "bf16"]
PRECISIONS_OF: Mapping[Backend, tuple[EnginePrecision, ...]] = {
    "tensorrt": ("fp32", "fp16"),
    "onnxruntime-cuda": ("fp32", "fp16"),
    "openvino": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "fp16"),
    "pytorch": ("fp32",),
}
"""The precisions of each backend. The machine or the bundle may support fewer."""
_CANNOT_OPEN = (BackendUnavailableError, EngineBuildError, OutputError)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Which engines to open.

    Raises:
        UsageError: The backend or the precision does not exist, the device is negative, or an argument has the wrong
            type.
    """

    backend: BackendChoice = "auto"
    """The library that runs the networks; `auto` selects the best one that runs here."""
    precision: PrecisionChoice = "auto"
    """The numeric precision; `auto` selects the fastest on the backend."""
    plans: PlanSource = no_plans
    """Where the backend `tensorrt` gets its engines from."""
    device: int = 0
    """Number of the GPU among those that this process sees. Backends that run on the CPU ignore it."""

    def __post_init__(self) -> None:
        check_function("plans", self.plans, "a function of bundle, stage, precision and device")
        check_argument("device", self.device, int, "the number of a GPU, from 0")
        if self.device < 0:
            raise UsageError(f"device: got {self.device}; pass the number of a GPU, from 0")
        for name, choice in (("backend", BackendChoice), ("precision", PrecisionChoice)):
            if getattr(self, name) not in get_args(choice):
                given = getattr(self, name)
                raise UsageError(f"{name}: unknown value {given!r}; choose from {', '.join(get_args(choice))}")


ANY_ENGINES = EngineRequest()
"""The best engines that run here."""


@dataclass(slots=True, repr=False)
class Engines:
    """Both stages on one backend. Whoever opens them must close them, or use them in a `with` block."""

    stage1: StageEngine
    stage2: StageEngine
    passed_over: tuple[str, ...] = ()
    """Why better backends were not chosen. Without a GPU, a single sentence covers all GPU backends."""
    levels_before: int = 0
    """Number of fallbacks that were tried and ran out of memory before these engines."""
    turns: Turns = field(default_factory=Turns, repr=False, compare=False)
    """Serializes access to both engines, for code that may be called from several threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.stage1.info
        return f"<Engines: {info.backend} {info.version} in {info.precision} on {info.device}>"

    def __reduce__(self) -> NoReturn:
        raise another_process()

    def __deepcopy__(self, _: object) -> NoReturn:
        raise UsageError("open engines cannot be copied; share them (threads take turns), or open the bundle again")

    def close(self) -> None:
        """Free both engines once no thread is running them. Does nothing in a process that did not open them."""
        if self.turns.elsewhere:
            return
        with self.turns.take(), closing(self.stage2):
            self.stage1.close()

    @property
    def level(self) -> int:
        """Number of times memory ran out and a smaller attempt was made; `rung` in reports."""
        stages = (self.stage1, self.stage2)
        return self.levels_before + sum(each.halvings for each in stages if isinstance(each, SplittingEngine))

    @property
    def doubts(self) -> tuple[InputWarning, ...]:
        """Warnings about the engines, which apply to all that they compute."""
        infos = {each.stage: each.info for each in (self.stage1, self.stage2)}
        return tuple(
            InputWarning(
                "W_PRECISION_UNPROVEN",
                f"it is not proven that {stage} was computed in {info.precision} ({info.settings[PRECISION_DOUBT]}); "
                "check the masks with cascade-rt verify",
            )
            for stage, info in infos.items()
            if PRECISION_DOUBT in info.settings
        )

    def halve_batches(self) -> bool:
        """Let both stages halve their batches whenever memory runs out. Return False if they do so already.

        Not done from the start, because only unsplit stages can hand over tensors on a shared device.
        """
        from cascade_rt.engines.tensorrt_engine import TensorRtEngine

        if isinstance(self.stage1, SplittingEngine):
            return False
        for engine in (self.stage1, self.stage2):
            if isinstance(engine, TensorRtEngine):
                # Whole batches are not run again, and what is kept for them may be what the other stage lacks.
                engine.forget_shapes()
        self.stage1, self.stage2 = SplittingEngine(self.stage1), SplittingEngine(self.stage2)
        return True

    def bridge(self) -> StageBridge[Any]:
        """Return a bridge that runs both stages: on the GPU if TensorRT runs both, else through the host."""
        from cascade_rt.engines.tensorrt_engine import TensorRtEngine

        if isinstance(self.stage1, TensorRtEngine) and isinstance(self.stage2, TensorRtEngine):
            from cascade_rt.engines.tensorrt_bridge import DeviceBridge

            return DeviceBridge(self.stage1, self.stage2)
        return HostBridge(self.stage1, self.stage2)


def cannot_open(error: CascadeError) -> bool:
    """Return whether an error only means that one backend cannot be opened here, so that the next may be tried.

    This covers engines that cannot be built or stored, and a library that refuses to run. It does not cover a library
    that ran and computed wrong results (`EngineError` with a specific code).
    """
    refused = isinstance(error, EngineError) and error.code == EngineError.default_code
    return refused or isinstance(error, _CANNOT_OPEN)


def open_engine(
    bundle: Bundle,
    stage: Stage,
    backend: Backend,
    precision: EnginePrecision = "fp32",
    plans: PlanSource = no_plans,
    device: int = 0,
) -> StageEngine:
    """Open one stage of a bundle on one backend.

    Args:
        bundle: The bundle.
        stage: The stage to open.
        backend: The backend to open it on.
        precision: The precision to compute in.
        plans: Source of engines for `tensorrt`. Other backends ignore it.
        device: Number of the GPU among those that this process sees. Backends that run on the CPU ignore it.

    Raises:
        BackendUnavailableError: The backend cannot run on this machine.
        BundleError: The bundle has no graphs in this precision.
        UsageError: The backend does not support this precision, or no GPU has this number.
    """
    if precision not in PRECISIONS_OF[backend]:
        raise UsageError(f"backend {backend!r} {_other_precisions(backend, precision)}; choose another backend")
    if backend == "openvino":
        from cascade_rt.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(bundle, stage, cast(OpenVinoPrecision, precision))
    precision = cast(Precision, precision)
    if backend == "tensorrt":
        from cascade_rt.engines.tensorrt_engine import TensorRtEngine

        return TensorRtEngine.of_bundle(bundle, stage, precision, plans, device)
    if backend == "onnxruntime-cuda":
        from cascade_rt.engines.onnxruntime_engine import OnnxRuntimeGpuEngine

        return OnnxRuntimeGpuEngine(bundle, stage, precision, device=device)
    if backend == "onnxruntime":
        from cascade_rt.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, stage, precision)
    for package in ("torch", "safetensors"):
        import_package(package, needed_by=backend_named(backend), extra="train")
    from cascade_rt.engines.pytorch import PyTorchEngine

    return PyTorchEngine.of_bundle(bundle, stage)


def open_engines(
    bundle: Bundle,
    backend: BackendChoice = "auto",
    precision: PrecisionChoice = "auto",
    plans: PlanSource = no_plans,
    device: int = 0,
) -> Engines:
    """Open both stages.

    Args:
        bundle: The bundle.
        backend: `auto` picks the first backend that really runs, and records why those before it did not.
        precision: `auto` picks the fastest on the backend among those in the bundle: fp32 on a CPU, fp16 on a GPU.
        plans: Source of engines for `tensorrt`.
        device: Number of the GPU among those that this process sees. Backends that run on the CPU ignore it. With
            `auto`, a number other than 0 needs a GPU.

    Raises:
        BackendUnavailableError: The requested backend, or every backend, cannot run on this machine, or there is no GPU
            although one was asked for by number.
        BundleError: The bundle has no graphs in this precision, or one that the library cannot run.
        EngineBuildError: The requested backend cannot build its engine.
        OutputError: The requested backend cannot store the engine that it builds.
        EngineError: The requested backend refuses to run, or an engine does not reproduce the exported outputs
            (`E_SELF_TEST`). In the latter case `auto` does not try the next backend.
        UsageError: The requested backend does not support this precision, or no GPU has this number.
    """
    if backend == "auto":
        engines = _open_best(bundle, precision, plans, device)
    else:
        engines = _open_both(bundle, backend, precision, plans, device)
    info = engines.stage1.info
    _log.info("opened %s on %s %s in %s on %s", bundle.path, info.backend, info.version, info.precision, info.device)
    for reason in engines.passed_over:
        _log.info("a better engine was passed over: %s", reason)
    return engines


def _open_best(bundle: Bundle, precision: PrecisionChoice, plans: PlanSource, device: int) -> Engines:
    check_device(device)
    candidates, passed_over = _candidates(device)
    for candidate in candidates:
        if precision not in ("auto", *PRECISIONS_OF[candidate]):
            passed_over.append(f"backend {candidate!r} {_other_precisions(candidate, precision)}")
            continue
        try:
            return replace(_open_both(bundle, candidate, precision, plans, device), passed_over=tuple(passed_over))
        except CascadeError as error:
            if not cannot_open(error):
                raise
            passed_over.append(str(error))
    raise BackendUnavailableError("no engine can run here: " + "; ".join(passed_over))


def _candidates(device: int) -> tuple[tuple[Backend, ...], list[str]]:
    """Return the backends worth trying, and why others are left out.

    Most machines have no GPU that could run them, so a single short sentence covers all GPU backends.
    """
    try:
        unsupported = find_gpu(device=device).unsupported
    except BackendUnavailableError as error:
        reason = f"need an NVIDIA GPU: {error}"
    else:
        if not unsupported:
            return BACKENDS, []
        reason = f"cannot run here: {unsupported}"
    return tuple(each for each in BACKENDS if each not in GPU_BACKENDS), [f"{' and '.join(GPU_BACKENDS)} {reason}"]


def _open_both(bundle: Bundle, backend: Backend, choice: PrecisionChoice, plans: PlanSource, device: int) -> Engines:
    precision = _precision(bundle, backend, choice)
    with ExitStack() as undo:
        # Outermost, because memory may run out wherever a graph or the golden case is read.
        undo.enter_context(named_out_of_memory("the bundle", backend))
        stage1 = open_engine(bundle, "stage1", backend, precision, plans, device)
        undo.callback(stage1.close)
        stage2 = open_engine(bundle, "stage2", backend, precision, plans, device)
        undo.callback(stage2.close)
        # A GPU library loads parts of itself lazily, so only the first run shows whether it works at all.
        golden = bundle.read_golden()
        for engine in (stage1, stage2):
            self_test(engine, golden[engine.stage])
        undo.pop_all()
    return Engines(stage1, stage2)


def _other_precisions(backend: Backend, precision: str) -> str:
    return f"computes in {' and '.join(PRECISIONS_OF[backend])}, not in {precision}"


def _precision(bundle: Bundle, backend: Backend, choice: PrecisionChoice) -> EnginePrecision:
    """Resolve `auto`. On a CPU this is fp32: fp16 is slower there, and bf16 is faster but finds different voxels."""
    if choice != "auto":
        return choice
    return bundle.precisions[-1] if backend in GPU_BACKENDS else "fp32"
