"""Check that the engines of an open cascade segment the way PyTorch does."""

from collections.abc import Callable, Mapping

from cascade_rt.common.tensors import EnginePrecision
from cascade_rt.common.tolerances import GATE_LIMITS, Limits
from cascade_rt.engines import open_engines
from cascade_rt.run.cascade import Cascade
from cascade_rt_export.calibration import Calibration, default_calibration
from cascade_rt_export.gate import GateResult, judge, run_gate


def verify(
    cascade: Cascade,
    calibration: Calibration | None = None,
    *,
    limits: Mapping[EnginePrecision, Limits] = GATE_LIMITS,
    on_step: Callable[[str], None] = lambda _: None,
) -> GateResult:
    """Compare the engines of a cascade with PyTorch on slices of scans, and raise if they differ too much.

    Args:
        cascade: An open cascade, whose bundle PyTorch runs too.
        calibration: The slices, such as those of `scan_calibration(paths)`. Default: slices that come with the package,
            or of phantoms for a bundle that was trained on phantoms.
        limits: How far each precision may differ.
        on_step: Called with a sentence before each step.

    Raises:
        ParityError: A limit is missed. The message names the first such limit, by how much and on which slice.
        BackendUnavailableError: PyTorch is not installed.
    """
    found = measure_parity(cascade, calibration, on_step=on_step)
    judge_cascade(found, cascade, limits)
    return found


def measure_parity(
    cascade: Cascade, calibration: Calibration | None = None, *, on_step: Callable[[str], None] = lambda _: None
) -> GateResult:
    """Measure how far the engines of a cascade differ from PyTorch, without judging it. See `verify`."""
    manifest = cascade.bundle.manifest
    with open_engines(cascade.bundle, "pytorch", "fp32") as reference, cascade.engines.turns.take():
        on_step("reading the slices")
        slices = calibration or default_calibration(manifest.training["data"])
        return run_gate(reference, cascade.engines, manifest.config, slices, on_step=on_step)


def judge_cascade(found: GateResult, cascade: Cascade, limits: Mapping[EnginePrecision, Limits]) -> None:
    """Raise ParityError if a limit of the precision of the cascade's engines is missed. See `verify`."""
    info = cascade.engines.stage1.info
    judge(found, limits[info.precision], f"{cascade.bundle.manifest.name} in {info.precision} on {info.backend}")
