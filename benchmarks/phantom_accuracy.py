"""How well does a bundle find pancreas and tumor in phantoms it was never trained on, and do its engines agree?

    python benchmarks/phantom_accuracy.py [--bundle BUNDLE] [--cases 20] [-o results.jsonl]

For each held-out phantom: Dice of pancreas (label > 0) and tumor (label 2) per case with the first engine, and the
masks and probabilities of each engine beside those of the last, which is PyTorch. One JSON line per case and one for
all of them; the summary is printed.

A phantom without tumor has no tumor Dice: whether anything was found in it is counted instead.
"""

import argparse
import json
import os
import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, cast

import numpy as np
from machine import commit, processor_name

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.comparison import compare, moved_boxes
from cascade_rt.common.labels import LOWEST_LABEL
from cascade_rt.common.metrics import dice
from cascade_rt.common.tensors import EnginePrecision
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import Backend, open_engines
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.volume import Volume

FIRST_SEED = 10_000
"""Held out: training uses seeds far below."""


def main() -> None:
    """Run the measurement and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=embedded_bundle_path("phantom"))
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--engines", nargs="+", metavar="BACKEND:PRECISION", help="default: ONNX Runtime, then PyTorch")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()

    bundle = read_bundle(options.bundle)
    engines = tuple(options.engines or usual_engines(bundle))
    lines = [machine(bundle, open_cascades(options.bundle, engines))]
    seeds = range(FIRST_SEED, FIRST_SEED + options.cases)
    with one_process_per_cpu() as pool:
        for case in pool.map(partial(measure_case, options.bundle, engines), seeds):
            lines.append(case)
            print(case_sentence(case), flush=True)
    lines.append(summary(lines[1:]))
    print(json.dumps(lines[-1], indent=2))
    if options.output:
        options.output.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def one_process_per_cpu() -> ProcessPoolExecutor:
    """Processes that each keep to a processor of their own: engines that share processors slow one another down."""
    cpus = sorted(os.sched_getaffinity(0))
    context = get_context("spawn")
    queue = context.Queue()
    for cpu in cpus:
        queue.put(cpu)
    return ProcessPoolExecutor(len(cpus), context, keep_to_one_cpu, (queue,))


def keep_to_one_cpu(queue: "Queue[int]") -> None:
    """Take a processor from the queue and keep to it; engines open as many threads as they find processors."""
    os.sched_setaffinity(0, {queue.get()})


def usual_engines(bundle: Bundle) -> list[str]:
    """ONNX Runtime in each precision of the bundle, then the baseline."""
    return [*(f"onnxruntime:{precision}" for precision in bundle.precisions), "pytorch:fp32"]


@cache
def open_cascades(path: Path, engines: tuple[str, ...]) -> dict[str, Cascade]:
    """Open a bundle on each engine, once in each process."""
    bundle, cascades = read_bundle(path), {}
    for name in engines:
        backend, _, precision = name.partition(":")
        opened = open_engines(bundle, cast(Backend, backend), cast(EnginePrecision, precision or "fp32"))
        cascades[name] = Cascade(bundle, opened)
    return cascades


def measure_case(bundle: Path, engines: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Segment one phantom with each engine and compare with the truth and with the last of them."""
    cascades = open_cascades(bundle, engines)
    phantom = make_phantom(seed)
    z_mm, row_mm, col_mm = phantom.spacing_mm
    volume = Volume.from_array(phantom.hu.T, np.diag([-col_mm, -row_mm, z_mm, 1.0]))
    results = {name: cascade.run(volume, keep_probabilities=True) for name, cascade in cascades.items()}
    (first, *_), (*others, baseline) = results.values(), results
    return {
        "kind": "case",
        "seed": phantom.seed,
        "has_tumor": phantom.has_tumor,
        "pancreas_dice": dice(first.mask > 0, phantom.label > 0),
        "tumor_dice": dice(first.mask == 2, phantom.label == 2) if phantom.has_tumor else None,
        "false_tumor_ml": None if phantom.has_tumor else first.measurements.tumor_ml,
        "timings_s": {name: dict(result.timings) for name, result in results.items()},
        "agreement": {name: agreement(results[name], results[baseline]) for name in others},
    }


def agreement(first: Segmentation, second: Segmentation) -> dict[str, Any]:
    """How an engine agrees with another on one scan; the Dice of two empty masks is none."""
    masks = compare(second.mask, first.mask, LOWEST_LABEL)
    return {
        "voxels": masks.voxels,
        "different": masks.different,
        "mask_dice": masks.dice,
        "organ_prob_max_error": compare(second.organ_prob, first.organ_prob).max_error,
        "tumor_prob_max_error": compare(second.tumor_prob, first.tumor_prob).max_error,
        "boxes_moved": len(moved_boxes(second.boxes, first.boxes)),
    }


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over all cases, worst cases, and agreement over all voxels."""
    pancreas = [case["pancreas_dice"] for case in cases]
    tumor = [case["tumor_dice"] for case in cases if case["has_tumor"]]
    false_ml = [case["false_tumor_ml"] for case in cases if not case["has_tumor"]]
    line = {
        "kind": "summary",
        "cases": len(cases),
        "pancreas_dice_mean": statistics.mean(pancreas),
        "pancreas_dice_min": min(pancreas),
        "tumor_cases": len(tumor),
        "tumor_dice_mean": statistics.mean(tumor),
        "tumor_dice_min": min(tumor),
        "tumor_cases_missed": sum(found == 0 for found in tumor),
        "tumor_free_cases": len(false_ml),
        "tumor_free_cases_with_false_tumor": sum(volume > 0 for volume in false_ml),
        # Empty on empty is Dice 1, something on empty is 0.
        "tumor_dice_mean_over_all_cases": statistics.mean([*tumor, *(float(volume == 0) for volume in false_ml)]),
    }
    names = cases[0]["agreement"]
    return {
        **line,
        "agreement": {name: agreement_of_all([case["agreement"][name] for case in cases]) for name in names},
    }


def agreement_of_all(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How an engine agrees with another on all scans."""
    different, voxels = sum(one["different"] for one in found), sum(one["voxels"] for one in found)
    line = {
        "different_voxels": different,
        "different_voxels_per_100_000": 1e5 * different / voxels,
        "organ_prob_max_error": max(one["organ_prob_max_error"] for one in found),
        "tumor_prob_max_error": max(one["tumor_prob_max_error"] for one in found),
        "boxes_moved": sum(one["boxes_moved"] for one in found),
    }
    for name in ("organ", "tumor"):
        values = [one["mask_dice"][name] for one in found if one["mask_dice"][name] is not None]
        line |= {f"{name}_mask_dice_mean": statistics.mean(values), f"{name}_mask_dice_min": min(values)}
    return line


def machine(bundle: Bundle, cascades: dict[str, Cascade]) -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "kind": "machine",
        "processor": processor_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "engines": {name: asdict(cascade.engines.stage1.info) for name, cascade in cascades.items()},
        "bundle": bundle.manifest.name,
        "bundle_sha256": bundle.sha256,
        "commit": commit(),
    }


def case_sentence(case: dict[str, Any]) -> str:
    """One case as a line to read."""
    tumor = (
        f"tumor {case['tumor_dice']:.3f}" if case["has_tumor"] else f"no tumor, {case['false_tumor_ml']:.2f} ml found"
    )
    return f"seed {case['seed']}: pancreas {case['pancreas_dice']:.3f}, {tumor}"


if __name__ == "__main__":
    main()
