"""What does stage 1 at half the pixels gain in time, and what can it cost in Dice?

    python benchmarks/stage1_stride.py [--bundle patients] [--labels LABELS] [-o benchmarks/results/stage1_stride.jsonl]

Time: the stage-1 graph of the bundle's own weights at `stage1_stride` 1 and 2 on one slice of 512 x 512, ONNX Runtime
and OpenVINO in float32, in turns in one process; the ratio has a 95 % interval over the paired runs. Weights do not
depend on the stride, so both graphs are real.

Dice: true labels averaged to half the pixels and brought back bilinearly, as the logits are, against themselves. That
is the most that any network on that grid can reach, not what a trained one loses.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import commit, processor_name
from torch.nn import functional as F

from cascade_rt.bundles.bundle import find_bundle, read_bundle
from cascade_rt.common.metrics import dice
from cascade_rt.common.processors import available_cpus
from cascade_rt.engines.doctor import package_versions
from cascade_rt.measuring.benchmarking.statistics import paired_ratio
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.models.weights import load_model
from cascade_rt.scans.volume import read_mask
from cascade_rt_export.onnx_graph import onnx_from_stage

ROUNDS = 20
SIDE = 512


def main() -> None:
    """Measure, print, and write JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="patients")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    bundle = read_bundle(find_bundle(options.bundle))
    model = load_model(bundle)
    facts = {"processor": processor_name(), "cpus": available_cpus(), "commit": commit(), "bundle": bundle.sha256}
    lines: list[dict[str, Any]] = [{"kind": "machine", **facts, "versions": package_versions()}]
    lines += [{"kind": "time", **entry} for entry in measure_times(model)]
    if options.labels is not None:
        lines.append({"kind": "dice", **ceiling(sorted(options.labels.glob("*.nii*")))})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    print(text, end="")
    if options.output is not None:
        options.output.write_text(text)


def measure_times(model: CascadeModel) -> list[dict[str, Any]]:
    """Seconds of each stride on each engine, and the ratio of the two."""
    graphs = {stride: onnx_from_stage(with_stride(model, stride), "stage1").SerializeToString() for stride in (1, 2)}
    hu = np.random.default_rng(0).normal(50, 100, (1, 1, SIDE, SIDE)).astype(np.float32)
    found = []
    for name, opener in (("onnxruntime", _open_onnxruntime), ("openvino", _open_openvino)):
        runs = {stride: opener(graph) for stride, graph in graphs.items()}
        seconds = in_turns({stride: lambda run=run: run(hu) for stride, run in runs.items()})
        ratio = paired_ratio(seconds[1], seconds[2])
        medians = {f"stride_{stride}_s": float(np.median(times)) for stride, times in seconds.items()}
        found.append({"engine": name, "rounds": ROUNDS, **medians, "ratio": asdict(ratio)})
    return found


def with_stride(model: CascadeModel, stride: int) -> CascadeModel:
    """The same weights on another grid."""
    config = replace(model.config, stage1_stride=stride)  # type: ignore[arg-type]
    changed = CascadeModel(config).eval()
    changed.load_state_dict(model.state_dict())
    return changed


def in_turns(runs: dict[int, Callable[[], object]]) -> dict[int, list[float]]:
    """Time each run `ROUNDS` times, one after the other, after two rounds that do not count."""
    seconds: dict[int, list[float]] = {key: [] for key in runs}
    for number in range(ROUNDS + 2):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            if number >= 2:
                seconds[key].append(time.perf_counter() - start)
    return seconds


def ceiling(labels: Sequence[Path]) -> dict[str, Any]:
    """Dice of labels that went to half the pixels and back, with themselves: mean per slice, and pooled."""
    slices, overlap, total = [], 0, 0
    for path in labels:
        for truth in read_mask(path) > 0:
            if truth.any():
                half = F.avg_pool2d(torch.from_numpy(truth.astype(np.float32))[None, None], 2)
                back = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)[0, 0].numpy() >= 0.5
                slices.append(dice(back, truth))
                overlap, total = overlap + 2 * int((back & truth).sum()), total + int(back.sum()) + int(truth.sum())
    return {"slices": len(slices), "mean": float(np.mean(slices)), "least": min(slices), "pooled": overlap / total}


def _open_onnxruntime(graph: bytes) -> Callable[[Any], object]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda hu: session.run(None, {"hu": hu})


def _open_openvino(graph: bytes) -> Callable[[Any], object]:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda hu: compiled({"hu": hu})


if __name__ == "__main__":
    main()
