"""What each stage of each arm reaches of what the processor can do, for the slices and crops that really ran."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from benchmarks.limit.operators import stage_images
from benchmarks.limit.work import Work, work_of
from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import STAGES, Stage, padded_side
from cascade_rt.measuring.benchmarking.measure import ArmResult

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Images:
    """The images that a stage was run on: how many of each size."""

    counts: Mapping[Size, int]

    @property
    def most(self) -> Size | None:
        """The size that most of them have; None without any."""
        return Counter(self.counts).most_common(1)[0][0] if self.counts else None


def images_of(reports: list[Path]) -> dict[Stage, Images]:
    """What both stages were run on, as the reports beside our masks have it."""
    slices: Counter[Size] = Counter()
    crops: Counter[Size] = Counter()
    for path in reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        count, rows, cols = report["geometry"]["shape"]
        slices[padded_side(rows), padded_side(cols)] += count
        crops.update((box["height"], box["width"]) for box in report["boxes"])
    return {"stage1": Images(slices), "stage2": Images(crops)}


def work_of_stage(bundle: Bundle, stage: Stage, images: Images) -> Work:
    """The work of a stage on all its images, in batches of the pipeline."""
    graph, total = onnx.load_model_from_string(bundle.graph(stage).read_bytes()), Work(0, 0)
    for size, count in images.counts.items():
        batch = stage_images(stage, size)
        (array,) = batch.values()
        total += work_of(graph, batch) * (count / len(array))
    return total


def stage_lines(
    arms: tuple[ArmResult, ...], work: Mapping[Stage, Work], peaks: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """A line for each stage of each arm on the processor; what a GPU reaches, `benchmarks.gpu` tells.

    Args:
        arms: What was measured.
        work: Of each stage, over all scans.
        peaks: Operations a second of each arithmetic, and bytes a second of `copy`.
    """
    for arm in (arm for arm in arms if arm.opened.description["device"] == "cpu"):
        for stage in STAGES:
            # Means over runs, one scan to a run; the work is that of all scans.
            scans = len({run.scan.path for run in arm.runs})
            seconds = arm.steps.get(stage, 0.0) * scans
            if seconds > 0:
                yield {"arm": arm.name, "stage": stage, "seconds": seconds, **_shares(arm, work[stage], seconds, peaks)}


def _shares(arm: ArmResult, work: Work, seconds: float, peaks: Mapping[str, float]) -> dict[str, Any]:
    precision = str(arm.opened.description["precision"])
    peak, copy = peaks.get(precision), peaks.get("copy")
    moved = work.bytes * (1.0 if precision == "fp32" else 0.5)
    return {
        "precision": precision,
        "operations": work.operations,
        "operations_per_second": work.operations / seconds,
        "peak_operations_per_second": peak,
        "share_of_peak": None if peak is None else work.operations / seconds / peak,
        "bytes": moved,
        "copy_bytes_per_second": copy,
        "share_of_copy": None if copy is None else moved / seconds / copy,
    }
