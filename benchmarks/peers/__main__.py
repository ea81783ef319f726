"""Whole scans beside what users would pick instead: the same scans, the same bundle, in turns.

    python -m benchmarks.peers --make-scans scans
    python -m benchmarks.peers scans/phantom_96.nii.gz -o peers.jsonl

Four peers (benchmarks/peers/*.py) and this package on each engine that runs here, every arm in a process of its own
that stays warm, one at work at a time. Then what the processor can do at best, what each stage reaches of it, and
which operators take the time. JSON lines, and a table in Markdown on standard output.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from benchmarks.limit.operators import PROFILERS, profile
from benchmarks.limit.stages import images_of, stage_lines, work_of_stage
from benchmarks.machine import commit
from benchmarks.peers.arms import OURS, PEERS, PLAIN, Peer, open_plain, openers, our_arms
from benchmarks.peers.scans import make_scans
from benchmarks.peers.table import arm_table, limit_table, operator_table, step_table, target_table
from benchmarks.peers.targets import Target, folder_target, memory_target, speed_targets, stage_target
from cascade_rt.atomic import check_target, write_bytes
from cascade_rt.benchmarking.arms import Arm, parse_arms
from cascade_rt.benchmarking.cascade_runner import open_arm, report_path
from cascade_rt.benchmarking.machine import describe_machine
from cascade_rt.benchmarking.measure import Measurement, Progress, Reference, Schedule, mask_paths, measure
from cascade_rt.benchmarking.report import as_text, describe_bundle, measurement_lines
from cascade_rt.benchmarking.worker import Worker
from cascade_rt.bundle import Bundle, default_bundle_path, read_bundle
from cascade_rt.errors import CascadeError, UsageError
from cascade_rt.tensors import STAGES
from cascade_rt.volume import read_grid

PATH = click.Path(path_type=Path)
DEFAULT_OUTPUT = Path(__file__).parents[1] / "results" / "peers.jsonl"
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


@click.command()
@click.argument("scans", nargs=-1, type=PATH, metavar="SCAN...")
@click.option("--make-scans", "scan_folder", type=PATH, metavar="DIR", help="Only write phantoms to measure on.")
@click.option(
    "--bundle",
    "bundles",
    type=PATH,
    multiple=True,
    default=(default_bundle_path(),),
    help="May be given several times. Default: the embedded one.",
)
@click.option(
    "--peers",
    "peer_names",
    default=",".join(peer.name for peer in PEERS if not peer.on_request),
    show_default=True,
    metavar="NAMES",
    help=f"With commas between, of: {', '.join(peer.name for peer in PEERS)}. {PLAIN} is always among them.",
)
@click.option(
    "--backends",
    metavar="ARMS",
    help="Our own arms, as of cascade-rt benchmark. Default: all that run here; of fp16 on a CPU none.",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--warm-up", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds, beside a first scan."
)
@click.option("--limit/--no-limit", default=True, show_default=True, help="Measure what the processor can do.")
@click.option(
    "--memory", "tall", type=PATH, metavar="SCAN", help="Measure peak memory on this scan, such as tall_1000."
)
@click.option(
    "--folder", type=click.IntRange(0), default=0, help="Measure a folder of so many copies of the first scan."
)
@click.option("-o", "--output", type=PATH, default=DEFAULT_OUTPUT, help="Default: benchmarks/results/peers.jsonl.")
@click.option("--append", is_flag=True, help="Keep the lines that are there.")
@click.pass_context
def main(
    context: click.Context,
    scans: tuple[Path, ...],
    scan_folder: Path | None,
    bundles: tuple[Path, ...],
    peer_names: str,
    backends: str | None,
    rounds: int,
    warm_up: float,
    limit: bool,
    tall: Path | None,
    folder: int,
    output: Path,
    append: bool,
) -> None:
    """Measure whole scans, from file to file, beside what users would pick instead."""

    def say(text: str) -> None:
        click.echo(f"{text} ...", err=True)

    try:
        if scan_folder is not None:
            make_scans(scan_folder, say)
            return
        if not scans:
            raise UsageError("name a scan to measure on; --make-scans DIR writes some")
        check_target(output, overwrite=True)
        ours = our_arms() if backends is None else parse_arms(backends)
        options = Options(scans, choose_peers(peer_names), ours, Schedule(rounds, warm_up), limit, tall, folder)
        before = output.read_text(encoding="utf-8") if append and output.is_file() else ""
        for path in bundles:
            lines, table = measure_bundle(read_bundle(path), options, say)
            before += as_text(lines)
            write_bytes(output, before.encode(), overwrite=True)
            click.echo("\n".join(table))
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def choose_peers(names: str) -> tuple[Peer, ...]:
    """The peers of some names, peer (a) first; UsageError where there is none of a name."""
    by_name, wanted = {peer.name: peer for peer in PEERS}, [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in by_name:
            raise UsageError(f"there is no peer {name!r}; choose from {', '.join(by_name)}")
    return tuple(by_name[name] for name in dict.fromkeys([PLAIN, *wanted]))


def measure_bundle(bundle: Bundle, options: Options, say: Say) -> tuple[Iterator[dict[str, Any]], list[str]]:
    """Measure everything on one bundle: the JSON lines, and the table."""
    machine, width = describe_machine(), bundle.manifest.config.base_width
    context = {"machine": machine, "bundle": describe_bundle(bundle), "commit": commit()}
    with tempfile.TemporaryDirectory(prefix="cascade-rt-peers-") as name, _one_process() as pool:
        folder = Path(name)
        peaks: list[dict[str, Any]] = []
        if options.limit:
            say("measuring what the processor can do")
            peaks = pool.submit(_measure_peaks).result()
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
    """A process for what would otherwise load PyTorch into this one."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def _measure_peaks() -> list[dict[str, Any]]:
    from benchmarks.limit.peaks import measure_processor

    return measure_processor()


def _best(lines: list[dict[str, Any]]) -> dict[str, float]:
    from benchmarks.limit.peaks import best

    return dict(best(lines))


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
    lines = list(stage_lines(measurement.arms, work, pool.submit(_best, peaks).result()))
    operators = []
    for name in PROFILERS:
        if measurement.arm(name) is None and measurement.arm(f"{OURS}{name}") is None:
            continue
        for stage in STAGES:
            size = images[stage].most
            if size is None:
                continue
            say(f"profiling {stage} on {name}")
            seconds = pool.submit(profile, name, bundle.path, stage, size).result()
            operators.append({"arm": name, "stage": stage, "size": size, "seconds": seconds, "reason": None})
    return lines, operators


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
            best = max(mine, key=lambda line: line["share_of_peak"])
            yield stage_target(stage, best["arm"], best["share_of_peak"])


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


if __name__ == "__main__":
    main()
