"""The comparison on one bundle: peers and our arms in turns, the limit, the targets, lines and tables."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.limit.operators import PROFILERS, profile
from benchmarks.limit.peaks import best, measure_processor
from benchmarks.limit.stages import images_of, stage_lines, work_of_stage
from benchmarks.machine import commit
from benchmarks.peers.arms import OURS, PLAIN, Peer, open_plain, openers
from benchmarks.peers.table import arm_table, limit_table, operator_table, step_table, target_table
from benchmarks.peers.targets import Target, folder_target, memory_target, speed_targets, stage_target
from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import STAGES
from cascade_rt.measuring.benchmarking.arms import Arm
from cascade_rt.measuring.benchmarking.cascade_runner import open_arm, report_path
from cascade_rt.measuring.benchmarking.machine import describe_machine
from cascade_rt.measuring.benchmarking.measure import (
    ArmResult,
    Measurement,
    Progress,
    Reference,
    Schedule,
    mask_paths,
    measure,
)
from cascade_rt.measuring.benchmarking.report import describe_bundle, measurement_lines
from cascade_rt.measuring.benchmarking.worker import Worker
from cascade_rt.scans.volume import read_grid

STAGE_TARGET_WIDTH = 16
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured."""

    scans: tuple[Path, ...]
    peers: tuple[Peer, ...]
    ours: tuple[Arm, ...]
    schedule: Schedule
    limit: bool
    tall: Path | None
    folder: int


def measure_bundle(bundle: Bundle, options: Options, say: Say) -> tuple[Iterator[dict[str, Any]], list[str]]:
    """Measure everything on one bundle: the JSON lines, and the table."""
    machine, width = describe_machine(), bundle.manifest.config.base_width
    context = {"machine": machine, "bundle": describe_bundle(bundle), "commit": commit()}
    with tempfile.TemporaryDirectory(prefix="cascade-rt-peers-") as name, _one_process() as pool:
        folder = Path(name)
        peaks: list[dict[str, Any]] = []
        if options.limit:
            say("measuring what the processor can do")
            peaks = pool.submit(measure_processor).result()
        arms = openers(bundle.path, options.peers, options.ours)
        reference = Reference(PLAIN, partial(open_plain, bundle.path))
        progress = Progress(on_step=say)
        measurement = measure(
            arms, options.scans, options.schedule, folder, reference, all_must_run=False, progress=progress
        )
        targets = list(speed_targets(measurement, width))
        limits, operators = _limits(bundle, measurement, folder, peaks, pool, say) if options.limit else ([], [])
        if width == STAGE_TARGET_WIDTH:
            targets += _stage_targets(limits)
        targets += _other_targets(bundle, measurement, options, folder, say)
    lines = [
        *measurement_lines(measurement, options.schedule, context),
        *({"kind": "peak", **line, **context} for line in peaks),
        *({"kind": "limit", **line, **context} for line in limits),
        *({"kind": "operators", **line, **context} for line in operators),
        *({"kind": "target", **target.to_json(), **context} for target in targets),
    ]
    return iter(lines), _tables(bundle, measurement, limits, operators, targets)


def _one_process() -> ProcessPoolExecutor:
    """A process for what computes with libraries that would leave their threads in this one."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def _limits(
    bundle: Bundle,
    measurement: Measurement,
    folder: Path,
    peaks: list[dict[str, Any]],
    pool: ProcessPoolExecutor,
    say: Say,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What each stage reaches, and which operators take its time; nothing where no arm of ours ran."""
    ours = next((arm.name for arm in measurement.arms if arm.name.startswith(OURS)), None)
    if ours is None:
        return [], []
    images = images_of([report_path(mask) for mask in mask_paths(folder, ours, len(measurement.scans))])
    say("counting the work of both stages")
    work = {stage: pool.submit(work_of_stage, bundle, stage, images[stage]).result() for stage in STAGES}
    lines = list(stage_lines(measurement.arms, work, best(peaks)))
    operators = []
    measured = {profiler_of(arm) for arm in measurement.arms}
    for name in (name for name in PROFILERS if name in measured):
        for stage in STAGES:
            size = images[stage].most
            if size is None:
                continue
            say(f"profiling {stage} on {name}")
            seconds = pool.submit(profile, name, bundle.path, stage, size).result()
            operators.append({"arm": name, "stage": stage, "size": size, "seconds": seconds, "reason": None})
    return lines, operators


def profiler_of(arm: ArmResult) -> str:
    """What the profiler of an arm would be called: by what computes, whatever precision was asked for."""
    engine = arm.opened.description
    return f"{engine['backend']}:{engine['precision']}" if arm.name.startswith(OURS) else arm.name


def _stage_targets(limits: Sequence[dict[str, Any]]) -> Iterator[Target]:
    """The best of our arms in float32, by stage."""
    for stage in STAGES:
        mine = [
            line
            for line in limits
            if line["stage"] == stage
            and line["arm"].startswith(OURS)
            and line["precision"] == "fp32"
            and line["share_of_peak"] is not None
        ]
        if mine:
            highest = max(mine, key=lambda line: line["share_of_peak"])
            yield stage_target(stage, highest["arm"], highest["share_of_peak"])


def _other_targets(
    bundle: Bundle, measurement: Measurement, options: Options, folder: Path, say: Say
) -> Iterator[Target]:
    """Memory and folders, where they were asked for, on the fastest of our arms."""
    mine = [arm for arm in measurement.arms if arm.name.startswith(OURS)]
    if not mine or (options.tall is None and not options.folder):
        return
    name = min(mine, key=lambda arm: arm.spread.p50).name
    arm = next(arm for arm in options.ours if f"{OURS}{arm.name}" == name)
    if options.tall is not None:
        say(f"measuring peak memory of {name} on {options.tall.name}")
        rows, cols, count = read_grid(options.tall).shape
        with Worker(name, partial(open_arm, bundle.path, arm)) as worker:
            worker.run(options.tall, folder / "tall_seg.nii.gz")
            yield memory_target(worker.peak_memory_bytes(), rows * cols * count)
    if options.folder:
        from benchmarks.peers.folder import FolderRunner

        say(f"measuring a folder of {options.folder} scans on {name}")
        with Worker(name, partial(FolderRunner, bundle.path, arm, options.folder)) as worker:
            runs = [worker.run(options.scans[0], folder / "folder_seg.nii.gz") for _ in range(options.schedule.rounds)]
        folder_s, single_s = ([run.steps[kind] for run in runs] for kind in ("folder", "single"))
        yield folder_target(options.folder, folder_s, single_s)


def _tables(
    bundle: Bundle,
    measurement: Measurement,
    limits: Sequence[dict[str, Any]],
    operators: Sequence[dict[str, Any]],
    targets: Sequence[Target],
) -> list[str]:
    scans = ", ".join(f"{scan.path.name} ({scan.slices} slices)" for scan in measurement.scans)
    config = bundle.manifest.config
    return [
        f"### {bundle.manifest.name}, base width {config.base_width}, {scans}",
        *("", *target_table(targets), ""),
        *(*arm_table(measurement), "", *step_table(measurement), ""),
        *((*limit_table(limits), "", *operator_table(operators), "") if limits else ()),
        *(f"Not measured: {name}: {reason}" for name, reason in measurement.left_out.items()),
    ]
