"""Write an evaluation as JSON for programs, and as CSV with one row per case for spreadsheets."""

import csv
import io
import json
import math
import os
from dataclasses import asdict
from typing import Any

from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.labels import TARGETS, Target
from cascade_rt.common.metrics import SAMPLE_SETS, Average, Confusion, Scores
from cascade_rt.common.shown_paths import hide_folders
from cascade_rt.measuring.evaluation import CaseResult, Evaluation
from cascade_rt.measuring.paired_difference import PairedDifference

REPORT_VERSION = 2

Row = dict[str, Any]


def save_report(evaluation: Evaluation, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write the report as JSON.

    Raises:
        OutputExistsError: The file exists and `overwrite` is False.
        OutputError: The file cannot be written.
    """
    text = json.dumps(evaluation_json(evaluation), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"), overwrite=overwrite)


def save_case_table(evaluation: Evaluation, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a header and one row per case as CSV; undefined values are empty. Raises like `save_report`.

    If every case failed, the file is empty, without a header.
    """
    text, rows = io.StringIO(), case_rows(evaluation)
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_bytes(path, text.getvalue().encode(errors="backslashreplace"), overwrite=overwrite)


def evaluation_json(evaluation: Evaluation) -> Row:
    """Return the whole evaluation as plain values; undefined values are None."""
    return {
        "report_version": REPORT_VERSION,
        "intended_use": evaluation.provenance["bundle"]["intended_use"],
        "tumor_in_labels": evaluation.tumor_in_labels,
        "aggregates": {
            "organ": _target_json(evaluation, "organ") if evaluation.organ_sought else None,
            "tumor": _tumor_json(evaluation) if "tumor" in evaluation.targets else None,
        },
        "baseline": _baseline_json(evaluation),
        "cases": case_rows(evaluation),
        "failures": [
            {"case": name, "error": hide_folders(error, evaluation.failed_files.get(name, ()))}
            for name, error in evaluation.failures.items()
        ],
        "warnings": list(evaluation.warnings),
        "provenance": dict(evaluation.provenance),
    }


def case_rows(evaluation: Evaluation) -> list[Row]:
    """Return one flat row per case, all with the same keys. Values that are undefined or not in the labels are None."""
    rows = [_case_row(case) for case in evaluation.cases]
    if "tumor" not in evaluation.targets:
        kept = {"tumor_found_ml"} if evaluation.tumor_sought else set()
        for row in rows:
            row.update({key: None for key in row if key.startswith(("tumor_", "crop_")) and key not in kept})
    if not evaluation.organ_sought:
        for row in rows:
            row.update({key: None for key in row if key.startswith("organ_") and key != "organ_true_ml"})
    return rows


def _case_row(case: CaseResult) -> Row:
    tumor = case.counts("tumor")
    row: Row = {
        "case": case.name,
        "status": case.status,
        "slices": len(case.slices["organ"]),
        "slices_without_organ_in_stage1": case.slices_without_organ,
        "seconds": case.seconds,
    }
    for target in TARGETS:
        counts = case.counts(target)
        row[f"{target}_true_ml"] = counts.positive * case.voxel_ml
        row[f"{target}_found_ml"] = counts.found * case.voxel_ml
        row |= {f"{target}_{metric}": value for metric, value in _metrics_json(counts).items()}
    row["tumor_detected"] = tumor.true_positive > 0 if tumor.positive else None
    row["tumor_slices"] = case.crop.slices
    row["tumor_slices_outside_boxes"] = case.crop.slices_outside
    row["crop_recall"] = _plain(case.crop.recall)
    if case.baseline is not None:
        for target in TARGETS:
            row[f"{target}_dice_baseline"] = case.baseline.counts[target].dice
            row[f"{target}_dice_difference"] = case.counts(target).dice - case.baseline.counts[target].dice
        row["different_voxels_per_100_000"] = case.baseline.agreement.per_100_000
    return row


def _target_json(evaluation: Evaluation, target: Target) -> Row:
    scores = evaluation.scores(target)
    return {
        "per_slice": {chosen: _scores_json(scores.slices[chosen]) for chosen in SAMPLE_SETS},
        "per_case": {chosen: _scores_json(scores.cases[chosen]) for chosen in SAMPLE_SETS},
        "pooled": _metrics_json(scores.pooled) | {"voxels": asdict(scores.pooled)},
        "slices_missed": scores.slices_missed,
    }


def _tumor_json(evaluation: Evaluation) -> Row:
    crop = evaluation.crop()
    return _target_json(evaluation, "tumor") | {
        "detection": asdict(evaluation.detection()),
        "crop": asdict(crop) | {"recall": _plain(crop.recall)},
    }


def _baseline_json(evaluation: Evaluation) -> Row | None:
    comparison = evaluation.comparison()
    if comparison is None:
        return None
    return {
        "engine": evaluation.baseline_engine,
        "dice_difference": {target: _difference_json(found) for target, found in comparison.dice.items()},
        "voxels": comparison.agreement.voxels,
        "different_voxels": comparison.agreement.different,
        "different_voxels_per_100_000": comparison.agreement.per_100_000,
    }


def _difference_json(difference: PairedDifference) -> Row:
    low, high = difference.interval
    worst = {"case": difference.worst_case, "difference": _plain(difference.worst)}
    return {
        "cases": difference.count,
        "mean": _plain(difference.mean),
        "interval_95": None if math.isnan(low) else [low, high],
        "worst": worst if difference.count else None,
    }


def _scores_json(scores: Scores) -> Row:
    return {
        "dice": _average_json(scores.dice),
        "sensitivity": _average_json(scores.sensitivity),
        "specificity": _average_json(scores.specificity),
        "both_empty": scores.both_empty,
    }


def _average_json(average: Average) -> Row:
    return {name: _plain(value) for name, value in asdict(average).items()}


def _metrics_json(counts: Confusion) -> Row:
    return {
        "dice": _plain(counts.dice),
        "sensitivity": _plain(counts.sensitivity),
        "specificity": _plain(counts.specificity),
    }


def _plain(value: float) -> float | None:
    """Replace NaN, which JSON does not have, by None."""
    return None if math.isnan(value) else value
