"""The parity gate on every engine that a GPU can have: what `cascade-rt verify` does, and no missed limit ends it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.gpu.deadline import NEVER, NO_TIME, Deadline
from benchmarks.gpu.lines import reason_of
from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import PRECISIONS, Precision
from cascade_rt.common.tolerances import GATE_LIMITS
from cascade_rt.engines import GPU_BACKENDS, Backend, Engines, open_engines
from cascade_rt.engines.plans import PlanSource
from cascade_rt.engines.pytorch import PyTorchEngine
from cascade_rt.errors import ParityError
from cascade_rt.models.weights import load_model
from cascade_rt_export.calibration import Calibration
from cascade_rt_export.gate import GateResult, judge, run_gate


def measure_gates(
    bundle: Bundle,
    calibration: Calibration,
    plans: PlanSource,
    *,
    backends: Sequence[Backend] = GPU_BACKENDS,
    deadline: Deadline = NEVER,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """Compare each backend with PyTorch in each precision; a line for each, also for one that cannot be opened.

    Args:
        bundle: What is run.
        calibration: What it is run on.
        plans: Where `tensorrt` gets its engines from.
        backends: What is compared.
        deadline: After it no engine is opened.
        say: Called with a sentence before each step.

    Raises:
        BackendUnavailableError: PyTorch, which all are compared with, cannot run the bundle.
    """
    with open_engines(bundle, "pytorch", "fp32") as reference:
        for backend in backends:
            for precision in PRECISIONS:
                if deadline.passed:
                    yield _line(bundle, reference, backend, precision) | {"reason": NO_TIME}
                    continue
                say(f"gate: opening {backend} {precision}")
                yield _measure(bundle, reference, backend, precision, calibration, plans, say)


def gate_of_pytorch(
    bundle: Bundle, calibration: Calibration, device: str, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Compare PyTorch on a device with PyTorch on the CPU; a line like those of `measure_gates`.

    Args:
        bundle: What is run.
        calibration: What it is run on.
        device: `cuda`, or `cpu` to try the code.
        say: Called with a sentence before each step.
    """
    say(f"gate: PyTorch on {device}")
    with pytorch_on(bundle, "cpu") as reference, pytorch_on(bundle, device) as candidate:
        return _compare(bundle, reference, candidate, "pytorch", "fp32", calibration, say)


def pytorch_on(bundle: Bundle, device: str) -> Engines:
    """Both stages of a bundle in PyTorch on a device of choice, each side of a comparison on its own."""
    model = load_model(bundle).to(device)
    return Engines(PyTorchEngine(model, "stage1"), PyTorchEngine(model, "stage2"))


def _measure(
    bundle: Bundle,
    reference: Engines,
    backend: Backend,
    precision: Precision,
    calibration: Calibration,
    plans: PlanSource,
    say: Callable[[str], None],
) -> dict[str, Any]:
    try:
        candidate = open_engines(bundle, backend, precision, plans)
    except Exception as error:  # noqa: BLE001  whatever a library raises is the answer for this engine
        return _line(bundle, reference, backend, precision) | {"reason": reason_of(error)}
    with candidate:
        return _compare(bundle, reference, candidate, backend, precision, calibration, say)


def _line(bundle: Bundle, reference: Engines, backend: Backend, precision: Precision) -> dict[str, Any]:
    return {
        "backend": backend,
        "precision": precision,
        "bundle": bundle.manifest.name,
        "bundle_sha256": bundle.sha256,
        "reference_device": reference.stage1.info.device,
        "passed": None,
        "missed": None,
        "found": None,
        "reason": None,
    }


def _compare(
    bundle: Bundle,
    reference: Engines,
    candidate: Engines,
    backend: Backend,
    precision: Precision,
    calibration: Calibration,
    say: Callable[[str], None],
) -> dict[str, Any]:
    line = _line(bundle, reference, backend, precision)
    try:
        found = run_gate(reference, candidate, bundle.manifest.config, calibration, on_step=say)
    except Exception as error:  # noqa: BLE001  whatever a library raises is the answer for this engine
        return line | {"reason": reason_of(error)}
    missed = _missed(found, precision, f"{backend} {precision}")
    return line | {"passed": missed is None, "missed": missed, "found": found.to_json()}


def _missed(found: GateResult, precision: Precision, what: str) -> str | None:
    """The sentence about the first limit that is missed."""
    try:
        judge(found, GATE_LIMITS[precision], what)
    except ParityError as error:
        return str(error)
    return None
