"""Train and test the rows of a table of the paper, and print them beside the paper's numbers.

    python benchmarks/reproduce/reproduce.py table3                                  phantoms, minutes a run
    python benchmarks/reproduce/reproduce.py table3 --store stores/msd --preset paper    MSD Task07, on a GPU
    python benchmarks/reproduce/reproduce.py table2 --store stores/nih --preset paper    NIH Pancreas-CT

A store is what `cascade-rt prepare` makes; its split says which cases are trained on and which are tested. Without one,
phantoms are made: small ones, whose table is about the code and not about patients.

All rows have the same cases, epochs and settings; only what makes the row differs. A line of JSON is written for each
run as soon as it is done; started again with the same file, the command goes on behind the last. Tables that share
a row share its runs.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from paper import TABLES, Row, Table, TableName
from rich import box
from rich.console import Console
from rich.table import Table as ConsoleTable

from cascade_rt.common.comparison import Agreement, compare
from cascade_rt.common.labels import LOWEST_LABEL, Target
from cascade_rt.common.metrics import average_scores, confusion, pool
from cascade_rt.config import PRESETS, CascadeConfig, Preset, TrainConfig, load_config, to_mapping
from cascade_rt.data.phantom_store import describe_phantoms, prepare_phantoms
from cascade_rt.data.slices import Case, open_cases
from cascade_rt.data.split import read_split
from cascade_rt.engines import Engines, open_engines
from cascade_rt.engines.pytorch import PyTorchEngine
from cascade_rt.run.scan_run import segment_voxels
from cascade_rt.training.checkpoint import Checkpoint
from cascade_rt.training.loop import train
from cascade_rt_export.bundle_export import export_bundle

PHANTOM_SHAPE = (24, 256, 256)
PHANTOM_FRAME = (slice(None), slice(46, 174), slice(50, 210))
"""The middle of the body, 128 x 160 pixels of about 1.6 mm: whole frames that a processor core can train on."""
PHANTOM_TRAIN, PHANTOM_TEST = range(30_000, 30_080), range(31_000, 31_040)
"""Seeds that neither the embedded bundle nor its test has."""
PHANTOM_CHANGES: dict[str, Any] = {
    "epochs": (1, 2, 7),
    "batch_size": 4,
    "patch": 0,
    "slices": "tumor",
    "background_share": 0.0,
}
"""What a small training needs beside the preset, the same for every row. The paper too trains on slices with tumor."""
PHANTOM_WIDTH, PAPER_WIDTH = 16, 64
"""Base widths. With 8, networks of one map end where tumor is a map of zeros, from which no gradient leads on."""


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=get_args(TableName))
    parser.add_argument(
        "-o", "--output", type=Path, help="JSON lines; default: benchmarks/results/reproduce_DATA.jsonl"
    )
    parser.add_argument("--store", type=Path, help="a store made by cascade-rt prepare; default: phantoms")
    parser.add_argument("--preset", choices=PRESETS, default="practical")
    parser.add_argument(
        "--base-width", type=int, help=f"default: {PHANTOM_WIDTH} on phantoms, otherwise {PAPER_WIDTH} as in the paper"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", help="names of rows; default: all that can be trained")
    parser.add_argument(
        "--export", action="store_true", help="also compare ONNX Runtime with PyTorch on the test slices"
    )
    parser.add_argument("--print", action="store_true", dest="only_print", help="print results without training")
    options = parser.parse_args()

    table = TABLES[options.table]
    data = "phantom" if options.store is None else table.dataset
    output = options.output or Path(__file__).parent.parent / "results" / f"reproduce_{data}.jsonl"
    if not options.only_print:
        cases = phantom_cases() if options.store is None else store_cases(options.store, table)
        width = options.base_width or (PHANTOM_WIDTH if data == "phantom" else PAPER_WIDTH)
        for seed in options.seeds:
            for row in table.rows:
                if row.method is None or (options.rows and row.name not in options.rows):
                    continue
                cascade, config = row_config(row, seed, table.target, data, options.preset, width)
                if is_done(read_lines(output), cascade, config):
                    continue
                line = {"method": row.method, **run_row(cascade, config, cases, export=options.export)}
                with output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{row.name}, seed {seed}: Dice {line['slice_dice']:.3f} in {line['seconds']:.0f} s", flush=True)
    Console(width=140).print(side_by_side(table, data, read_lines(output)))


def phantom_cases() -> tuple[str, list[Case], list[Case]]:
    """What the cases are, those to train on and those to test on."""
    store = Path(tempfile.gettempdir()) / "cascade_rt_reproduce"
    training, test = (
        open_cases(store, prepare_phantoms(store, seeds, PHANTOM_SHAPE)) for seeds in (PHANTOM_TRAIN, PHANTOM_TEST)
    )
    frame = "their middle, {1.start}:{1.stop} x {2.start}:{2.stop}".format(*PHANTOM_FRAME)
    return f"{describe_phantoms(PHANTOM_TRAIN, PHANTOM_SHAPE)}, {frame}", cut(training), cut(test)


def cut(cases: Sequence[Case]) -> list[Case]:
    """The frame of each case, still mapped from the disk."""
    return [replace(case, image=case.image[PHANTOM_FRAME], label=case.label[PHANTOM_FRAME]) for case in cases]


def store_cases(store: Path, table: Table) -> tuple[str, list[Case], list[Case]]:
    """The same of a prepared store."""
    split = read_split(store, table.dataset)
    return str(split), open_cases(store, split.train), open_cases(store, split.test)


def row_config(
    row: Row, seed: int, target: Target, data: str, preset: Preset, width: int
) -> tuple[CascadeConfig, TrainConfig]:
    """The config of a row; all that differs between rows comes from its variant or network."""
    cascade, config = load_config(preset=preset, variant=row.variant, network=row.network)
    cascade, config = replace(cascade, base_width=width), replace(config, seed=seed)
    if data == "phantom":
        config = replace(config, **PHANTOM_CHANGES)
    if target == "organ":
        slices = "organ" if config.slices == "tumor" else config.slices
        config = replace(config, slices=slices, boundary_classes=2)
    return replace(cascade, target=target), config


def run_row(
    cascade: CascadeConfig, config: TrainConfig, cases: tuple[str, list[Case], list[Case]], *, export: bool
) -> dict[str, Any]:
    """Train a row and test it as the paper does: on all slices with the target, each the full frame."""
    description, training, test = cases
    images, labels = positive_slices(test, LOWEST_LABEL[cascade.target])
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = train(training, Path(folder) / "run", cascade, config, data=description)
        seconds = time.perf_counter() - started
        model = checkpoint.build_model()
        engines = Engines(PyTorchEngine(model, "stage1"), PyTorchEngine(model, "stage2"))
        masks = [segment_voxels(engines, cascade, image, None).mask for image in images]
        agreement = onnx_agreement(checkpoint, Path(folder) / "bundle", images, masks) if export else None
    return {
        "seed": config.seed,
        "data": description,
        "test_cases": len(images),
        **scores(masks, labels, LOWEST_LABEL[cascade.target]),
        "different_voxels": None if agreement is None else agreement.different,
        "different_voxels_per_100_000": None if agreement is None else agreement.per_100_000,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "cpus": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "cascade": to_mapping(cascade),
        "train": to_mapping(config),
    }


def positive_slices(cases: Sequence[Case], lowest_label: int) -> tuple[list[Any], list[Any]]:
    """Images and labels of the cases, each `[slice, row, col]`, of nothing but the slices that hold the target."""
    images, labels = [], []
    for case in cases:
        chosen = np.flatnonzero(case.label.max(axis=(1, 2)) >= lowest_label)
        if chosen.size:
            images.append(case.image[chosen])
            labels.append(case.label[chosen])
    return images, labels


def onnx_agreement(checkpoint: Checkpoint, bundle: Path, images: Sequence[Any], masks: Sequence[Any]) -> Agreement:
    """Export, and compare the masks of ONNX Runtime with those of PyTorch."""
    engines = open_engines(export_bundle(checkpoint, bundle, half=False), "onnxruntime")
    found = [segment_voxels(engines, checkpoint.cascade, image, None).mask for image in images]
    return sum(map(compare, masks, found), start=Agreement())


def scores(masks: Sequence[Any], labels: Sequence[Any], lowest_label: int) -> dict[str, Any]:
    """Dice, SEN and SPE: means over slices, and Dice pooled over all of them."""
    slices = [
        confusion(found >= lowest_label, true >= lowest_label)
        for mask, label in zip(masks, labels, strict=True)
        for found, true in zip(mask, label, strict=True)
    ]
    means = average_scores(slices, "positive")
    return {
        "slices": means.dice.count,
        "slice_dice": means.dice.mean,
        "slice_sensitivity": means.sensitivity.mean,
        "slice_specificity": means.specificity.mean,
        "slices_missed": sum(counts.true_positive == 0 for counts in slices),
        "pooled_dice": pool(slices).dice,
    }


def is_done(lines: Sequence[dict[str, Any]], cascade: CascadeConfig, config: TrainConfig) -> bool:
    """Whether a run of exactly this config is there already."""
    wanted = json.loads(json.dumps([to_mapping(cascade), to_mapping(config)]))
    return any([line["cascade"], line["train"]] == wanted for line in lines)


def read_lines(output: Path) -> list[dict[str, Any]]:
    """The runs of a file."""
    text = output.read_text(encoding="utf-8") if output.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def side_by_side(table: Table, data: str, lines: Sequence[dict[str, Any]]) -> ConsoleTable:
    """The paper's numbers and ours: mean over the seeds and their range."""
    kind = "on PHANTOMS, not patients" if data == "phantom" else f"on {data.upper()}"
    headings = ("", "paper: Dice, SEN, SPE", "ours: Dice", "SEN", "SPE", "runs", "")
    shown = ConsoleTable(*headings, title=f"{table.title}, {kind}", box=box.MARKDOWN)
    for row in table.rows:
        own = [line for line in lines if (line["method"], line["cascade"]["target"]) == (row.method, table.target)]
        cells = [range_text([line[f"slice_{name}"] for line in own]) for name in ("dice", "sensitivity", "specificity")]
        paper = ", ".join(f"{value:.4f}" for value in (row.dice, row.sensitivity, row.specificity) if value)
        shown.add_row(row.name, paper, *cells, str(len(own) or ""), row.remark)
    return shown


def range_text(values: Sequence[float]) -> str:
    """Mean, and the lowest and highest value where there are several."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
