"""How many images should a stage be given at once on a CPU?

    python benchmarks/batch_sizes.py [--bundle BUNDLE] [--base-width 16] [-o benchmarks/results/batch_sizes.jsonl]

Times both stages on each CPU engine in batches of 1, 2, 4 and 8, interleaved, and how much memory each takes in a
process of its own. A bundle of a base width is made of random weights, which cost what trained ones cost. One JSON line
for each engine, stage and batch; the first line is the machine. `CPU_BATCH` in `cascade_rt/common/tensors.py` is chosen
by it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
from machine import commit, processor_name

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.processors import available_cpus
from cascade_rt.common.tensors import STAGE_SPECS, STAGES, EnginePrecision, Stage
from cascade_rt.engines import Backend, open_engine
from cascade_rt.engines.base import StageEngine
from cascade_rt.engines.doctor import package_versions

BATCHES = (1, 2, 4, 8)
SIDES: dict[Stage, int] = {"stage1": 512, "stage2": 160}
"""Height and width of a slice, and of a usual crop."""
ENGINES = ("openvino:fp32", "openvino:bf16", "onnxruntime:fp32", "pytorch:fp32")
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Case:
    """One engine with one batch."""

    bundle: str
    engine: str
    stage: Stage
    batch: int

    def open(self) -> StageEngine:
        """The engine."""
        backend, _, precision = self.engine.partition(":")
        bundle = read_bundle(Path(self.bundle))
        return open_engine(bundle, self.stage, cast(Backend, backend), cast(EnginePrecision, precision))

    def run(self, engine: StageEngine) -> float:
        """Seconds for an image."""
        side, name = SIDES[self.stage], STAGE_SPECS[self.stage].inputs[0].name
        image = np.random.default_rng(0).normal(size=(self.batch, 1, side, side)).astype(np.float32)
        inputs = {name: image * (200 if name == "hu" else 0.3)}
        begin = time.perf_counter()
        engine.run(inputs)
        return (time.perf_counter() - begin) / self.batch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--base-width", type=int, action="append", default=[])
    parser.add_argument("--engines", nargs="+", default=ENGINES, metavar="BACKEND:PRECISION")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.memory_of:
        print(peak_megabytes(Case(**json.loads(options.memory_of))))
        return
    lines = [machine()]
    with tempfile.TemporaryDirectory() as folder:
        bundles = [*(options.bundle or [embedded_bundle_path("phantom")])]
        bundles += [random_bundle(width, Path(folder)).path for width in options.base_width]
        for bundle in bundles:
            for line in measure(bundle, options.engines, options.rounds):
                lines.append(line)
                print(json.dumps(line), flush=True)
    if options.output:
        options.output.write_text("".join(json.dumps(line) + "\n" for line in lines))


def measure(bundle: Path, engines: Sequence[str], rounds: int) -> Iterator[dict[str, object]]:
    """Time all batches of a bundle, one after the other in each round; each engine is opened once."""
    width = read_bundle(bundle).manifest.config.base_width
    for stage in STAGES:
        cases = [Case(os.fspath(bundle), engine, stage, batch) for engine in engines for batch in BATCHES]
        opened = {engine: Case(os.fspath(bundle), engine, stage, 1).open() for engine in engines}
        seconds: dict[Case, list[float]] = {case: [] for case in cases}
        for case in cases:
            case.run(opened[case.engine])
        for _ in range(rounds):
            for case in cases:
                seconds[case].append(case.run(opened[case.engine]))
        for engine in opened.values():
            engine.close()
        for case, taken in seconds.items():
            figures = {"ms": 1e3 * statistics.median(taken), "best_ms": 1e3 * min(taken), "peak_mb": memory(case)}
            yield asdict(case) | {"bundle": bundle.name, "base_width": width, "side": SIDES[stage]} | figures


def memory(case: Case) -> float:
    """Peak memory of a fresh process that runs a case, in MB."""
    command = [sys.executable, __file__, "--memory-of", json.dumps(asdict(case))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_megabytes(case: Case) -> float:
    """Run a case a few times in this process; its peak memory in MB."""
    engine = case.open()
    for _ in range(3):
        case.run(engine)
    # Not `getrusage`, whose peak is inherited from the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(peak[1]) / 1000 if peak else float("nan")


def random_bundle(base_width: int, folder: Path) -> Bundle:
    """Export a cascade of random weights, configured like the embedded one of phantoms but for its width."""
    import torch

    from cascade_rt.common.tolerances import Limits
    from cascade_rt.config import CascadeConfig, TrainConfig, from_mapping, to_mapping
    from cascade_rt.models.cascade_model import CascadeModel
    from cascade_rt.training.checkpoint import Checkpoint
    from cascade_rt_export.bundle_export import export_bundle

    embedded = to_mapping(read_bundle(embedded_bundle_path("phantom")).manifest.config)
    config = from_mapping(CascadeConfig, {**embedded, "base_width": base_width}, "config")
    torch.manual_seed(0)
    weights = CascadeModel(config).state_dict()
    checkpoint = Checkpoint(config, TrainConfig(), "random weights", epochs_done=0, model=weights, optimizer={})
    anything = Limits(max_error=1.0, mean_error=1.0, least_dice=0.0, slot_error=1.0)
    return export_bundle(checkpoint, folder / f"width{base_width}", half=False, limits={"fp32": anything})


def machine() -> dict[str, object]:
    """What it is measured with."""
    return {
        "machine": processor_name(),
        "cpus": available_cpus(),
        "commit": commit(),
        "versions": package_versions(),
    }


if __name__ == "__main__":
    main()
