"""`cascade-rt benchmark`: compare the time per scan of several engines, and whether their masks stay the same."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from cascade_rt.bundles.bundle import Bundle, default_bundle_path, read_bundle
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.outputs import check_files
from cascade_rt.engines.nvidia import check_device
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.console import print_rows, progress_bar, results_console
from cascade_rt_cli.options import PATH, FiniteFloat, bundle_option, device_option, overwrite_option, scan_options
from cascade_rt_cli.output import print_note
from cascade_rt_cli.plans import plans

if TYPE_CHECKING:
    from cascade_rt.measuring.benchmarking.arms import Arm
    from cascade_rt.measuring.benchmarking.measure import ArmResult, Measurement, Schedule

_MIB = 1 << 20
_WIDEST = 1000


@click.command()
@click.argument("scans", nargs=-1, required=True, type=PATH, metavar="SCAN...")
@click.option(
    "--backends",
    metavar="ARMS",
    help="Backends to measure, separated by commas, each with an optional :precision, such as "
    "onnxruntime,pytorch:fp32. Append +z-search=4 or +body-box to search only part of the scan, as in infer; the table "
    "shows what that costs. Default: all that run here.",
)
@device_option
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Each arm segments every scan once per round. 90th percentiles need 10 runs, 99th 100.",
)
@click.option(
    "--warm-up",
    type=FiniteFloat(min=0),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="Each arm runs at least this long, and each scan once, before timing starts.",
)
@click.option("-o", "--output", type=PATH, metavar="JSONL", help="Write every arm and every run to this file.")
@click.option("--chart", type=PATH, metavar="PNG", help="Plot the steps of each arm in this file.")
@scan_options
@bundle_option
@overwrite_option
def benchmark(
    scans: tuple[Path, ...],
    backends: str | None,
    device: int,
    rounds: int,
    warm_up: float,
    output: Path | None,
    chart: Path | None,
    bundle: Path | None,
    overwrite: bool,
    reading: ScanOptions,
) -> None:
    """Time whole scans, from file to file, on several engines side by side.

    Each arm (a backend in a precision) runs in a separate process and segments SCAN as infer does, into a temporary
    folder. First each arm starts cold and warms up; then all take turns, A B A B, so that a temporary slowdown of the
    machine affects all of them. Nothing else should run on the machine.

    The table shows percentiles of the time per scan, slices per second and peak memory, and the Dice of the masks
    against PyTorch in float32, because speed that changes masks is worthless. Below it are the time of each step, the
    speed-up of each arm over the first, with its 95 % interval, and the cold start.

    \b
    Examples:
      cascade-rt benchmark scan.nii.gz
      cascade-rt benchmark scan.nii.gz --backends onnxruntime,pytorch --rounds 10 --chart steps.png
      cascade-rt benchmark scan.nii.gz --backends openvino:fp32,openvino:fp32+z-search=4
      cascade-rt benchmark scans/*.nii.gz --bundle bundles/first -o results.jsonl
      cascade-rt demo && cascade-rt benchmark out/demo/phantom.nii.gz --bundle phantom
    """  # noqa: D301
    from cascade_rt.measuring.benchmarking.arms import all_arms, parse_arms
    from cascade_rt.measuring.benchmarking.chart import bar_of, save_chart
    from cascade_rt.measuring.benchmarking.machine import describe_machine
    from cascade_rt.measuring.benchmarking.measure import Schedule
    from cascade_rt.measuring.benchmarking.report import as_text, describe_bundle, measurement_lines

    arms, schedule = all_arms() if backends is None else parse_arms(backends), Schedule(rounds, warm_up)
    check_files((output, chart), scans, overwrite=overwrite)
    check_device(device)
    opened = read_bundle(bundle or default_bundle_path())
    names = ", ".join(arm.name for arm in arms)
    print_note(f"measuring {len(scans)} scans in {rounds} rounds, bundle {opened.manifest.name}, with {names}")
    measurement = _measure(scans, arms, opened, device, schedule, reading, all_must_run=backends is not None)
    machine = describe_machine(device)
    if output is not None:
        context = {"machine": machine, "bundle": describe_bundle(opened)}
        lines = as_text(measurement_lines(measurement, schedule, context))
        write_bytes(output, lines.encode(), overwrite=overwrite)
    if chart is not None:
        title = "seconds from file to file, mean of all runs"
        save_chart([bar_of(arm) for arm in measurement.arms], title, chart, overwrite=overwrite)
    _print_benchmark(results_console(), measurement, machine, opened)


def _measure(
    scans: Sequence[Path],
    arms: "tuple[Arm, ...]",
    bundle: Bundle,
    device: int,
    schedule: "Schedule",
    reading: ScanOptions,
    *,
    all_must_run: bool,
) -> "Measurement":
    """Measure with a progress bar. The masks are compared with those of the baseline that training used."""
    from cascade_rt.measuring.benchmarking.arms import Arm
    from cascade_rt.measuring.benchmarking.cascade_runner import runners
    from cascade_rt.measuring.benchmarking.measure import Progress, Reference, measure

    baseline = Arm("pytorch", "fp32")
    reference = Reference(baseline.name, runners(bundle.path, (baseline,), reading=reading)[baseline.name])
    with tempfile.TemporaryDirectory(prefix="cascade-rt-benchmark-") as folder, progress_bar() as bars:
        bar = bars.add_task("", total=len(arms) * len(scans) * schedule.rounds)
        return measure(
            runners(bundle.path, arms, plans, reading, device),
            scans,
            schedule,
            Path(folder),
            reference,
            all_must_run=all_must_run,
            progress=Progress(lambda text: bars.update(bar, description=text), lambda: bars.advance(bar)),
            reading=reading,
        )


def _print_benchmark(console: Console, measurement: "Measurement", machine: Mapping[str, Any], bundle: Bundle) -> None:
    """Print times with mask agreement, steps, speed-ups, cold starts, and the machine, versions and bundle used."""
    _print_whole(console, _arm_table(measurement))
    console.print()
    _print_whole(console, _step_table(measurement))
    console.print()
    for rows in (_ratios(measurement), _cold_starts(measurement), _notes(measurement), _context(machine, bundle)):
        print_rows(console, rows)


def _print_whole(console: Console, table: Table) -> None:
    """Print a table at its full width, because a truncated number is useless."""
    table.width = Console(width=_WIDEST).measure(table).maximum
    console.print(table)


def _arm_table(measurement: "Measurement") -> Table:
    """Make the table of times, memory and masks. It fits 80 columns if the arm names are of usual length."""
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for name in ("p50 s", "p90 s", "p99 s", "slices/s", "MiB", "pancreas", "tumor", "voxels"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in measurement.arms:
        times = (arm.spread.p50, arm.spread.p90, arm.spread.p99)
        table.add_row(
            arm.name,
            *("-" if time is None else f"{time:.2f}" for time in times),
            f"{arm.slices_per_second:.1f}",
            f"{arm.peak_memory_bytes / _MIB:.0f}",
            *_mask_cells(arm),
        )
    return table


def _mask_cells(arm: "ArmResult") -> tuple[str, ...]:
    """Return cells with the Dice of both targets and the number of differing voxels.

    If the reference found nothing of a target, its Dice is meaningless and shown as "none".
    """
    if arm.masks is None:
        return "-", "-", "-"
    dice = (f"{counts.dice:.4f}" if counts.positive else "none" for counts in arm.masks.counts.values())
    return *dice, f"{arm.masks.different:,}"


def _step_table(measurement: "Measurement") -> Table:
    from cascade_rt.measuring.benchmarking.chart import bar_of

    bars = [bar_of(arm) for arm in measurement.arms]
    steps = dict.fromkeys(step for bar in bars for step in bar.parts)
    table = Table(box=None, pad_edge=False)
    table.add_column("steps, ms", no_wrap=True)
    for step in steps:
        table.add_column(step, justify="right")
    for bar in bars:
        table.add_row(bar.name, *(f"{1e3 * bar.parts.get(step, 0.0):.0f}" for step in steps))
    return table


def _ratios(measurement: "Measurement") -> Iterator[tuple[str, str]]:
    first, *others = measurement.arms
    for index, arm in enumerate(others):
        ratio = measurement.ratio(first.name, arm.name)
        if ratio is None:
            continue
        interval = "" if math.isnan(ratio.low) else f" (95 % interval {ratio.low:.2f} to {ratio.high:.2f})"
        text = f"{arm.name} is {ratio.ratio:.2f} times as fast as {first.name}{interval}"
        yield "" if index else "ratio", text


def _cold_starts(measurement: "Measurement") -> Iterator[tuple[str, str]]:
    for index, arm in enumerate(measurement.arms):
        cold = f"{arm.name}: {arm.opened.seconds:.2f} s to start, {arm.first_run.seconds:.2f} s for the first scan"
        yield "" if index else "cold", cold
    for arm in measurement.arms:
        if arm.gpu_memory_bytes is not None:
            yield "GPU memory", f"{arm.name}: {arm.gpu_memory_bytes / _MIB:.0f} MiB"


def _notes(measurement: "Measurement") -> Iterator[tuple[str, str]]:
    from cascade_rt.measuring.benchmarking.statistics import FEWEST_RUNS

    runs = len(measurement.arms[0].runs)
    slices = sum(scan.slices for scan in measurement.scans)
    scans = f"{len(measurement.scans)} scan{'s' if len(measurement.scans) > 1 else ''} with {slices} slices in total"
    yield "runs", f"{runs} of each arm, {scans}"
    missing = [f"p{percent} needs {fewest}" for percent, fewest in FEWEST_RUNS.items() if runs < fewest]
    if missing:
        slowest = ", ".join(f"{arm.name} {arm.spread.slowest:.2f} s" for arm in measurement.arms)
        yield "", f"too few for some percentiles ({', '.join(missing)}); slowest run: {slowest}"
    yield "masks", f"Dice and differing voxels, compared with {measurement.reference}"
    if measurement.no_reference:
        yield "", f"not compared with PyTorch: {measurement.no_reference}"
    for index, reason in enumerate(dict.fromkeys(measurement.left_out.values())):
        yield "" if index else "left out", reason


def _context(machine: Mapping[str, Any], bundle: Bundle) -> Iterator[tuple[str, str]]:
    gpu = machine["gpu"]
    where = f"{machine['processor']}, {machine['cpus']} processors" + (f", {gpu['name']}" if gpu else "")
    yield "machine", f"{where}, {machine['system']}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield "bundle", f"{bundle.manifest.name} {bundle.sha256[:12]}, base width {bundle.manifest.config.base_width}"
