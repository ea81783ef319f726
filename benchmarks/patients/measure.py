"""The measurement: patients through the cascade, a line of plain values for each, and lines that sum them up.

Masks are measured as the networks find them (`all`), and of whole scans also with nothing but their largest 3D
component (`largest`). Everything is measured at the resolution of the file.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.patients.cases import NOMINAL_PIXEL_MM, Case, CaseSet, Mask, Patient, parts_without_organ, read_patient
from benchmarks.patients.engines import agreement_of_all, agreement_with_reference
from benchmarks.patients.scores import (
    METRICS,
    Bootstrap,
    mean_over_cases,
    slice_counts,
    slices_missed,
    three_aggregations,
)
from benchmarks.patients.shapes import largest_component, surface_scores
from cascade_rt.common.metrics import Confusion, pool
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.volume import Volume

Kept = Literal["all", "largest"]
Line = dict[str, Any]
OnFound = Callable[[Patient, Mask], None]


@dataclass(frozen=True, slots=True)
class Scores:
    """What is kept of one mask of one patient."""

    set: CaseSet
    kept: Kept
    slices: tuple[Confusion, ...]
    """Counts of each slice."""
    values: Mapping[str, float]
    """Further figures by name, NaN where undefined; of whole scans only."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One patient."""

    scores: tuple[Scores, ...]
    agreement: Mapping[str, Mapping[str, Any]]
    """Of each other engine with the reference."""
    line: Line


def measure_case(
    case: Case, cascades: Mapping[str, Cascade], on_found: OnFound = lambda _patient, _mask: None
) -> CaseResult:
    """Segment one patient on every engine; the first one's mask is scored.

    Args:
        case: The patient.
        cascades: By the names of their engines.
        on_found: Called with the patient and the mask that is scored, `[z, row, col]`.

    Raises:
        InputError: A file cannot be used.
        EngineError: An engine failed.
    """
    patient = read_patient(case)
    runs = {name: cascade.run(patient.volume) for name, cascade in cascades.items()}
    first = next(iter(runs.values()))
    found = first.mask > 0
    on_found(patient, found)
    scores = tuple(score_masks(patient, found))
    agreement = agreement_with_reference({name: run.mask for name, run in runs.items()})
    line = {
        "kind": "case",
        "set": case.set,
        "case": case.name,
        "slices": len(found),
        "slices_with_pancreas": int(np.count_nonzero(patient.truth.any(axis=(1, 2)))),
        "spacing_mm": list(patient.volume.spacing_mm),
        "masks": {one.kept: _scores_json(one) for one in scores},
        "agreement": agreement,
        "seconds": {name: run.wall_s for name, run in runs.items()},
        "warnings": [str(warning) for warning in first.warnings],
    }
    return CaseResult(scores, agreement, line)


def score_masks(patient: Patient, found: Mask) -> Iterator[Scores]:
    """Score a mask `[z, row, col]` as it is and, of a whole scan, its largest component alone."""
    counts = slice_counts(found, patient.truth)
    if patient.case.set == "slices":
        yield Scores("slices", "all", counts, {})
        return
    largest, components = largest_component(found)
    yield Scores("scans", "all", counts, _shape(patient, found, components))
    # Where there is one component at most, nothing is taken away.
    alone = counts if components < 2 else slice_counts(largest, patient.truth)
    yield Scores("scans", "largest", alone, _shape(patient, largest, min(components, 1)))


def measure_without_organ(patient: Patient, cascade: Cascade) -> Iterator[Line]:
    """What is found in the parts of a whole scan that hold no pancreas: all of it is false."""
    for part, volume in parts_without_organ(patient):
        found = cascade.run(volume).mask > 0
        largest, components = largest_component(found)
        yield {
            "kind": "without_organ",
            "case": patient.case.name,
            "part": part,
            "slices": len(found),
            "slices_with_found": _slices_with(found),
            "components": components,
            "false_ml": _voxels(found) * volume.voxel_volume_ml,
            "false_ml_largest": _voxels(largest) * volume.voxel_volume_ml,
        }


def measure_negatives(volume: Volume, cascade: Cascade) -> Line:
    """What is found in scattered slices without pancreas; their spacing is unknown, so areas are nominal."""
    found = cascade.run(volume).mask > 0
    cm2 = _voxels(found) * NOMINAL_PIXEL_MM**2 / 100
    return {
        "kind": "negatives",
        "name": volume.name,
        "slices": len(found),
        "slices_with_found": _slices_with(found),
        "false_pixels": _voxels(found),
        "nominal_pixel_mm": NOMINAL_PIXEL_MM,
        "false_cm2_per_slice": cm2 / len(found),
    }


def summary_lines(results: Sequence[CaseResult], bootstrap: Bootstrap) -> Iterator[Line]:
    """A line for each set of patients and kind of mask, and one for how the engines agree."""
    groups: dict[tuple[CaseSet, Kept], list[Scores]] = {}
    for result in results:
        for scores in result.scores:
            groups.setdefault((scores.set, scores.kept), []).append(scores)
    for (case_set, kept), group in groups.items():
        yield {"kind": "summary", "set": case_set, "masks": kept, **_summary(group, bootstrap)}
    agreement = agreement_of_all(result.agreement for result in results)
    if agreement:
        yield {"kind": "agreement", "engines": agreement}


def summary_without_organ(lines: Sequence[Line]) -> Line:
    """All parts without pancreas together."""
    return {
        "kind": "summary_without_organ",
        "scans": len({line["case"] for line in lines}),
        "parts": len(lines),
        "parts_with_found": sum(line["false_ml"] > 0 for line in lines),
        "slices": sum(line["slices"] for line in lines),
        "slices_with_found": sum(line["slices_with_found"] for line in lines),
        "false_ml_mean": float(np.mean([line["false_ml"] for line in lines])),
        "false_ml_worst": max(line["false_ml"] for line in lines),
        "false_ml_largest_mean": float(np.mean([line["false_ml_largest"] for line in lines])),
    }


def _shape(patient: Patient, found: Mask, components: int) -> dict[str, float]:
    surface = surface_scores(found, patient.truth, patient.volume.spacing_mm)
    voxel_ml = patient.volume.voxel_volume_ml
    true_ml, found_ml = _voxels(patient.truth) * voxel_ml, _voxels(found) * voxel_ml
    return {
        "hd95_mm": surface.hd95_mm,
        "surface_dice_2mm": surface.dice,
        "components": components,
        "true_ml": true_ml,
        "found_ml": found_ml,
        "volume_error_ml": found_ml - true_ml,
        "absolute_volume_error_ml": abs(found_ml - true_ml),
    }


def _summary(group: Sequence[Scores], bootstrap: Bootstrap) -> Line:
    patients = [scores.slices for scores in group]
    names = group[0].values
    line: Line = {
        "cases": len(group),
        **three_aggregations(patients, bootstrap),
        "slices_missed": slices_missed(patients),
        "cases_missed": sum(pool(slices).true_positive == 0 for slices in patients),
        "bootstrap": {"seed": bootstrap.seed, "resamples": bootstrap.resamples, "level": bootstrap.level},
    }
    for name in names:
        values = [scores.values[name] for scores in group]
        defined = [value for value in values if not math.isnan(value)]
        line[name] = {
            **mean_over_cases(values, bootstrap).to_json(),
            "median": float(np.median(defined)) if defined else None,
        }
    return line


def _scores_json(scores: Scores) -> Line:
    counts = pool(scores.slices)
    with_organ = [one for one in scores.slices if one.positive]
    return {
        **{metric: plain(getattr(counts, metric)) for metric in METRICS},
        "slice_dice_mean": float(np.mean([one.dice for one in with_organ])),
        "slice_dice": [one.dice for one in with_organ],
        "slices_missed": slices_missed([scores.slices]),
        **{name: plain(value) for name, value in scores.values.items()},
    }


def plain(value: float) -> float | None:
    """A number, or None in place of NaN, which JSON has not."""
    return None if math.isnan(value) else value


def _voxels(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _slices_with(mask: Mask) -> int:
    return int(np.count_nonzero(mask.any(axis=(1, 2))))
