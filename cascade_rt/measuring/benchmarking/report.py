"""Write a measurement as JSON lines. Each line alone states what was measured, with what, and when."""

import datetime
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.comparison import Agreement
from cascade_rt.common.shown_paths import hide_folders
from cascade_rt.measuring.benchmarking.measure import ArmResult, Measurement, Schedule
from cascade_rt.measuring.benchmarking.statistics import Ratio

BENCHMARK_VERSION = 1


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Return the description of the bundle that every line contains."""
    manifest = bundle.manifest
    return {"name": manifest.name, "sha256": bundle.sha256, "base_width": manifest.config.base_width}


def measurement_lines(
    measurement: Measurement, schedule: Schedule, context: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield one line for each arm, for each skipped arm, and for each run.

    Args:
        measurement: The results.
        schedule: The schedule of the measurement.
        context: Values included in every line: machine, bundle, commit.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    common = {"benchmark_version": BENCHMARK_VERSION, "date": now, **context}
    first = measurement.arms[0]
    for arm in measurement.arms:
        ratio = measurement.ratio(first.name, arm.name)
        yield {
            "kind": "arm",
            **_arm(arm),
            "times_as_fast_as": {"arm": first.name, **ratio_json(ratio)},
            "masks": {"reference": measurement.reference, **_masks(arm.masks)},
            "reference_missing": measurement.no_reference or None,
            "schedule": asdict(schedule),
            "scans": [{"name": scan.path.name, "slices": scan.slices} for scan in measurement.scans],
            **common,
        }
    for name, reason in measurement.left_out.items():
        yield {"kind": "left_out", "arm": name, "reason": hide_folders(reason, ()), **common}
    for arm in measurement.arms:
        for each in arm.runs:
            yield {
                "kind": "run",
                "arm": arm.name,
                "round": each.round,
                "scan": each.scan.path.name,
                "seconds": each.run.seconds,
                "steps_s": dict(each.run.steps),
                **common,
            }


def ratio_json(ratio: Ratio | None) -> dict[str, Any]:
    """Return a ratio as plain values, with None for NaN, which JSON does not have."""
    if ratio is None:
        return {"ratio": None, "low": None, "high": None, "pairs": 0}
    return {name: None if math.isnan(value) else value for name, value in asdict(ratio).items()}


def as_text(lines: Iterator[dict[str, Any]]) -> str:
    """Serialize lines as JSON lines."""
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _arm(arm: ArmResult) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "engine": dict(arm.opened.description),
        "open_s": arm.opened.seconds,
        "first_scan_s": arm.first_run.seconds,
        "seconds": asdict(arm.spread),
        "slices_per_second": arm.slices_per_second,
        "steps_s": arm.steps,
        "beside_networks_s": sum(arm.beside_networks) / len(arm.runs),
        "peak_memory_bytes": arm.peak_memory_bytes,
        "gpu_memory_bytes": arm.gpu_memory_bytes,
    }


def _masks(masks: Agreement | None) -> dict[str, Any]:
    if masks is None:
        return {}
    return {
        "voxels": masks.voxels,
        "different": masks.different,
        "different_per_100_000": masks.per_100_000,
        "dice": {target: counts.dice for target, counts in masks.counts.items()},
        "found_voxels": {target: counts.positive for target, counts in masks.counts.items()},
    }
