"""The parity gate: does an engine segment the way PyTorch does?

Calibration slices go through the whole cascade, once with PyTorch and once with the engine. They are then run with
stage 1 of one and stage 2 of the other, so that a difference can be attributed to a stage. Batching is checked
separately (see `batch_slots`), because a faulty engine gives the same wrong answer every time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cascade_rt.common.comparison import Agreement, compare, moved_boxes
from cascade_rt.common.tensors import EnginePrecision, Stage
from cascade_rt.common.tolerances import GATE_LIMITS, Limits
from cascade_rt.config import CascadeConfig, from_mapping, read_toml
from cascade_rt.engines import Engines
from cascade_rt.engines.stage_bridge import MASK_THRESHOLD
from cascade_rt.errors import EngineError, ParityError, UsageError
from cascade_rt.run.scan_run import ScanRun, segment_voxels
from cascade_rt_export.batch_slots import compare_slots
from cascade_rt_export.calibration import Calibration, CalibrationScan


def read_limits(path: Path | None) -> Mapping[EnginePrecision, Limits]:
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


def _limits_in(table: Any, usual: Limits, where: str) -> Limits:
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table, got {table!r}")
    limits = from_mapping(Limits, {**asdict(usual), **table}, where)
    for key, value in asdict(limits).items():
        # Negated so that NaN is refused.
        if not 0 <= value <= 1:
            raise UsageError(f"{where}.{key} must lie between 0 and 1, got {value}")
    return limits


@dataclass(frozen=True, slots=True)
class GateResult:
    """Measurements of one engine."""

    engine: Mapping[str, Any]
    """Backend, precision, device and version."""
    calibration: str
    slices: int
    organ: Agreement
    tumor: Agreement
    """End to end, with both stages of the engine."""
    tumor_behind_pytorch: Agreement
    """Stage 1 of PyTorch followed by stage 2 of the engine: the contribution of stage 2."""
    tumor_before_pytorch: Agreement
    """Stage 1 of the engine followed by stage 2 of PyTorch: the contribution of stage 1."""
    boxes_moved: tuple[str, ...]
    """Slices whose crop differs."""
    tumors_appeared: tuple[str, ...]
    """Slices in which only the engine finds tumor."""
    tumors_vanished: tuple[str, ...]
    """Slices in which only PyTorch finds tumor."""
    slots: Mapping[str, Agreement]
    """For each stage, the agreement between the outputs for one input at different batch positions."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the manifest, with None in place of NaN."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "slots"}
        maps = {name: _map_json(value) for name, value in plain.items() if isinstance(value, Agreement)}
        slots = {stage: _plain(found.max_error) for stage, found in self.slots.items()}
        return {**plain, **maps, "slot_errors": slots}


def _map_json(found: Agreement) -> dict[str, Any]:
    return {
        "max_error": _plain(found.max_error),
        "mean_error": _plain(found.mean_error),
        "mask_dice": found.dice["mask"],
        "worst_slice": found.worst_slice,
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


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
    organ = tumor = behind = before = Agreement()
    moved = appeared = vanished = tuple[str, ...]()
    for scan in calibration.scans:
        on_step(f"comparing {candidate.stage1.info.backend} {candidate.stage1.info.precision} on {scan.name}")
        mixed = (Engines(reference.stage1, candidate.stage2), Engines(candidate.stage1, reference.stage2))
        expected, found, *halves = (_run(engines, config, scan) for engines in (reference, candidate, *mixed))
        organ += _compare(scan, expected, found, "stage1")
        tumor += _compare(scan, expected, found, "stage2")
        behind += _compare(scan, expected, halves[0], "stage2")
        before += _compare(scan, expected, halves[1], "stage2")
        moved += tuple(map(scan.slice_name, moved_boxes(expected.boxes, found.boxes)))
        ill, found_ill = _slices_with_tumor(expected), _slices_with_tumor(found)
        appeared += tuple(map(scan.slice_name, sorted(found_ill - ill)))
        vanished += tuple(map(scan.slice_name, sorted(ill - found_ill)))
    on_step("comparing the slots of a batch")
    return GateResult(
        engine=asdict(candidate.stage1.info),
        calibration=calibration.source,
        slices=sum(len(scan.voxels) for scan in calibration.scans),
        organ=organ,
        tumor=tumor,
        tumor_behind_pytorch=behind,
        tumor_before_pytorch=before,
        boxes_moved=moved,
        tumors_appeared=appeared,
        tumors_vanished=vanished,
        slots={engine.stage: compare_slots(engine) for engine in (candidate.stage1, candidate.stage2)},
    )


def _run(engines: Engines, config: CascadeConfig, scan: CalibrationScan) -> ScanRun:
    try:
        return segment_voxels(engines, config, scan.voxels, scan.pixel_mm, keep_probabilities=True)
    except EngineError as error:
        raise ParityError(f"{scan.name}: {error}") from error


def judge(found: GateResult, limits: Limits, what: str) -> None:
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
    for stage, found_slots in found.slots.items():
        if found_slots.missed(Limits(max_error=limits.slot_error)):
            raise ParityError(
                f"{what}: {stage} returns different outputs for one input at different batch positions, by "
                f"{found_slots.max_error:.2g}; do not use this engine, report its version"
            )


def _complaint(name: str, found: Agreement, limits: Limits) -> str | None:
    where = f"; the largest difference is in {found.worst_slice}"
    match found.missed(limits):
        case "max_error":
            return f"a probability of the {name} differs from PyTorch by {found.max_error:.2g}" + where
        case "mean_error":
            return f"probabilities of the {name} differ from PyTorch by {found.mean_error:.2g} on average" + where
        case "least_dice":
            return f"the {name} mask has a Dice of {found.dice['mask']:.5f} with that of PyTorch" + where
    return None


def _blame(found: GateResult, limits: Limits) -> str:
    alone = {"stage 1": found.tumor_before_pytorch, "stage 2": found.tumor_behind_pytorch}
    guilty = [stage for stage, agreement in alone.items() if agreement.missed(limits)]
    return f"also with {' or '.join(guilty)} alone" if guilty else "with neither stage alone"


def _compare(scan: CalibrationScan, expected: ScanRun, found: ScanRun, stage: Stage) -> Agreement:
    names = [scan.slice_name(index) for index in range(len(scan.voxels))]
    maps = expected.probabilities[stage], found.probabilities[stage]
    return compare(*maps, {"mask": MASK_THRESHOLD}, slices=names)


def _slices_with_tumor(run: ScanRun) -> set[int]:
    return set(np.flatnonzero((run.probabilities["stage2"] >= MASK_THRESHOLD).any(axis=(1, 2))).tolist())
