"""The parity gate: does an engine segment the way PyTorch does?

Calibration slices go through the whole cascade, once with PyTorch and once with the engine. They are then run with
stage 1 of one and stage 2 of the other, so that a difference can be attributed to a stage. Batching is checked
separately (see `batch_slots`), because a faulty engine gives the same wrong answer every time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.metrics import Confusion, confusion, pool
from cascade_rt.common.tensors import EnginePrecision, Stage
from cascade_rt.common.tolerances import GATE_LIMITS, ParityLimits
from cascade_rt.config import CascadeConfig, from_mapping, read_toml
from cascade_rt.engines import Engines
from cascade_rt.engines.stage_bridge import MASK_THRESHOLD
from cascade_rt.errors import EngineError, ParityError, UsageError
from cascade_rt.run.scan_run import ScanRun, segment_voxels
from cascade_rt_export.batch_slots import slot_errors
from cascade_rt_export.calibration import Calibration, CalibrationScan


def read_limits(path: Path | None) -> Mapping[EnginePrecision, ParityLimits]:
    """Read limits from a TOML file with one table per precision. Missing values default to those in `GATE_LIMITS`.

    Without a file, the limits are `GATE_LIMITS`.

    Raises:
        UsageError: The file cannot be read, is not valid TOML, or has an unknown table, an unknown key or an invalid
            value.
    """
    document = {} if path is None else read_toml(path)
    unknown = set(document) - set(GATE_LIMITS)
    if unknown:
        raise UsageError(f"{path}: unknown table [{min(unknown)}]; limits have the tables [fp32], [fp16] and [bf16]")
    return {
        precision: _limits_in(document.get(precision, {}), usual, f"{path}: {precision}")
        for precision, usual in GATE_LIMITS.items()
    }


def _limits_in(table: Any, usual: ParityLimits, where: str) -> ParityLimits:
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table, got {table!r}")
    limits = from_mapping(ParityLimits, {**asdict(usual), **table}, where)
    for key, value in asdict(limits).items():
        # Negated so that NaN is refused.
        if not 0 <= value <= 1:
            raise UsageError(f"{where}.{key} must lie between 0 and 1, got {value}")
    return limits


@dataclass(frozen=True, slots=True)
class MapAgreement:
    """Agreement of one probability map with that of PyTorch."""

    max_error: float
    mean_error: float
    mask_dice: float
    """Dice between the masks, pooled over all slices. NaN if both are empty."""
    worst_slice: str
    """The slice in which `max_error` occurs."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """Measurements of one engine."""

    engine: Mapping[str, Any]
    """Backend, precision, device and version."""
    calibration: str
    slices: int
    organ: MapAgreement
    tumor: MapAgreement
    """End to end, with both stages of the engine."""
    tumor_behind_pytorch: MapAgreement
    """Stage 1 of PyTorch followed by stage 2 of the engine: the contribution of stage 2."""
    tumor_before_pytorch: MapAgreement
    """Stage 1 of the engine followed by stage 2 of PyTorch: the contribution of stage 1."""
    boxes_moved: tuple[str, ...]
    """Slices whose crop differs."""
    tumors_appeared: tuple[str, ...]
    """Slices in which only the engine finds tumor."""
    tumors_vanished: tuple[str, ...]
    """Slices in which only PyTorch finds tumor."""
    slot_errors: Mapping[str, float]
    """For each stage, the largest difference between the outputs for one input at different batch positions."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the manifest, with None in place of NaN."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain


def run_gate(
    reference: Engines,
    candidate: Engines,
    config: CascadeConfig,
    calibration: Calibration,
    *,
    on_step: Callable[[str], None] = lambda _: None,
) -> GateResult:
    """Measure how well a candidate agrees with the reference, without judging it (see `judge`).

    Raises:
        ParityError: The candidate returned NaN or infinity.
    """
    pairs: dict[str, list[tuple[ScanRun, ScanRun]]] = {"both": [], "stage2": [], "stage1": []}
    for scan in calibration.scans:
        on_step(f"comparing {candidate.stage1.info.backend} {candidate.stage1.info.precision} on {scan.name}")
        expected = _run(reference, config, scan)
        mixed = {
            "both": candidate,
            "stage2": Engines(reference.stage1, candidate.stage2),
            "stage1": Engines(candidate.stage1, reference.stage2),
        }
        for name, engines in mixed.items():
            pairs[name].append((expected, _run(engines, config, scan)))
    scans = calibration.scans
    on_step("comparing the places of a batch")
    return GateResult(
        engine=asdict(candidate.stage1.info),
        calibration=calibration.source,
        slices=sum(len(scan.voxels) for scan in scans),
        organ=_agreement(scans, _maps(pairs["both"], "stage1")),
        tumor=_agreement(scans, _maps(pairs["both"], "stage2")),
        tumor_behind_pytorch=_agreement(scans, _maps(pairs["stage2"], "stage2")),
        tumor_before_pytorch=_agreement(scans, _maps(pairs["stage1"], "stage2")),
        boxes_moved=_slices(scans, pairs["both"], lambda a, b, index: a.boxes.get(index) != b.boxes.get(index)),
        tumors_appeared=_slices(scans, pairs["both"], lambda a, b, index: _has_tumor(b, index) > _has_tumor(a, index)),
        tumors_vanished=_slices(scans, pairs["both"], lambda a, b, index: _has_tumor(a, index) > _has_tumor(b, index)),
        slot_errors={engine.stage: slot_errors(engine) for engine in (candidate.stage1, candidate.stage2)},
    )


def _run(engines: Engines, config: CascadeConfig, scan: CalibrationScan) -> ScanRun:
    try:
        return segment_voxels(engines, config, scan.voxels, scan.pixel_mm, keep_probabilities=True)
    except EngineError as error:
        raise ParityError(f"{scan.name}: {error}") from error


def judge(found: GateResult, limits: ParityLimits, what: str) -> None:
    """Raise if an engine differs from PyTorch by more than the limits allow.

    Args:
        found: The measurements.
        limits: The limits.
        what: Description of the engine for the message.

    Raises:
        ParityError: A limit is missed. The message names the first such limit, by how much and on which slice.
    """
    for name, agreement in (("organ", found.organ), ("tumor", found.tumor)):
        complaint = _complaint(name, agreement, limits)
        if complaint:
            raise ParityError(f"{what}: {complaint}, {_blame(found, limits)}")
    for stage, error in found.slot_errors.items():
        # Negated so that NaN fails.
        if not error <= limits.slot_error:
            raise ParityError(
                f"{what}: {stage} answers the same input differently in different places of a batch, by {error:.2g}; "
                "do not use this engine, report its version"
            )


def _complaint(name: str, found: MapAgreement, limits: ParityLimits) -> str | None:
    where = f"; the largest difference is in {found.worst_slice}"
    # Negated so that NaN fails. Only the Dice may be NaN, when both masks are empty.
    if not found.max_error <= limits.max_error:
        return f"a probability of the {name} differs from PyTorch by {found.max_error:.2g}" + where
    if not found.mean_error <= limits.mean_error:
        return f"probabilities of the {name} differ from PyTorch by {found.mean_error:.2g} on average" + where
    if found.mask_dice < limits.least_dice:
        return f"the {name} mask has a Dice of {found.mask_dice:.5f} with that of PyTorch" + where
    return None


def _blame(found: GateResult, limits: ParityLimits) -> str:
    alone = {
        "stage 1": _complaint("tumor", found.tumor_before_pytorch, limits),
        "stage 2": _complaint("tumor", found.tumor_behind_pytorch, limits),
    }
    guilty = [stage for stage, complaint in alone.items() if complaint]
    return f"also with {' or '.join(guilty)} alone" if guilty else "with neither stage alone"


def _maps(
    pairs: Sequence[tuple[ScanRun, ScanRun]], stage: Stage
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    return [(first.probabilities[stage], second.probabilities[stage]) for first, second in pairs]


def _agreement(
    scans: Sequence[CalibrationScan], maps: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
) -> MapAgreement:
    differences = [np.abs(first - second) for first, second in maps]
    largest = {
        scan.slice_name(index): float(layer.max())
        for scan, difference in zip(scans, differences, strict=True)
        for index, layer in enumerate(difference)
    }
    worst = max(largest, key=lambda name: largest[name])
    pooled: Confusion = pool(confusion(second >= MASK_THRESHOLD, first >= MASK_THRESHOLD) for first, second in maps)
    return MapAgreement(
        max_error=largest[worst],
        mean_error=float(
            sum(each.sum(dtype=np.float64) for each in differences) / sum(each.size for each in differences)
        ),
        mask_dice=pooled.dice if pooled.positive or pooled.found else math.nan,
        worst_slice=worst,
    )


def _slices(
    scans: Sequence[CalibrationScan],
    pairs: Sequence[tuple[ScanRun, ScanRun]],
    differs: Callable[[ScanRun, ScanRun, int], bool],
) -> tuple[str, ...]:
    return tuple(
        scan.slice_name(index)
        for scan, (first, second) in zip(scans, pairs, strict=True)
        for index in range(len(scan.voxels))
        if differs(first, second, index)
    )


def _has_tumor(found: ScanRun, index: int) -> bool:
    return bool((found.probabilities["stage2"][index] >= MASK_THRESHOLD).any())


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
