"""Print a benchmark for human readers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.measuring.benchmarking.chart import bar_of
from cascade_rt.measuring.benchmarking.measure import ArmResult, Measurement
from cascade_rt.measuring.benchmarking.statistics import FEWEST_RUNS
from cascade_rt_cli.console import print_rows

_MIB = 1 << 20
_WIDEST = 1000


def print_benchmark(console: Console, measurement: Measurement, machine: Mapping[str, Any], bundle: Bundle) -> None:
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


def _arm_table(measurement: Measurement) -> Table:
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


def _mask_cells(arm: ArmResult) -> tuple[str, ...]:
    """Return cells with the Dice of both targets and the number of differing voxels.

    If the reference found nothing of a target, its Dice is meaningless and shown as "none".
    """
    if arm.masks is None:
        return "-", "-", "-"
    dice = (f"{counts.dice:.4f}" if counts.positive else "none" for counts in arm.masks.counts.values())
    return *dice, f"{arm.masks.different:,}"


def _step_table(measurement: Measurement) -> Table:
    bars = [bar_of(arm) for arm in measurement.arms]
    steps = dict.fromkeys(step for bar in bars for step in bar.parts)
    table = Table(box=None, pad_edge=False)
    table.add_column("steps, ms", no_wrap=True)
    for step in steps:
        table.add_column(step, justify="right")
    for bar in bars:
        table.add_row(bar.name, *(f"{1e3 * bar.parts.get(step, 0.0):.0f}" for step in steps))
    return table


def _ratios(measurement: Measurement) -> Iterator[tuple[str, str]]:
    first, *others = measurement.arms
    for index, arm in enumerate(others):
        ratio = measurement.ratio(first.name, arm.name)
        if ratio is None:
            continue
        interval = "" if math.isnan(ratio.low) else f" (95 % interval {ratio.low:.2f} to {ratio.high:.2f})"
        text = f"{arm.name} is {ratio.ratio:.2f} times as fast as {first.name}{interval}"
        yield "" if index else "ratio", text


def _cold_starts(measurement: Measurement) -> Iterator[tuple[str, str]]:
    for index, arm in enumerate(measurement.arms):
        cold = f"{arm.name}: {arm.opened.seconds:.2f} s to start, {arm.first_run.seconds:.2f} s for the first scan"
        yield "" if index else "cold", cold
    for arm in measurement.arms:
        if arm.gpu_memory_bytes is not None:
            yield "GPU memory", f"{arm.name}: {arm.gpu_memory_bytes / _MIB:.0f} MiB"


def _notes(measurement: Measurement) -> Iterator[tuple[str, str]]:
    runs = len(measurement.arms[0].runs)
    slices = sum(scan.slices for scan in measurement.scans)
    scans = f"{len(measurement.scans)} scan{'s' if len(measurement.scans) > 1 else ''} of {slices} slices in all"
    yield "runs", f"{runs} of each arm, {scans}"
    missing = [f"p{percent} needs {fewest}" for percent, fewest in FEWEST_RUNS.items() if runs < fewest]
    if missing:
        slowest = ", ".join(f"{arm.name} {arm.spread.slowest:.2f} s" for arm in measurement.arms)
        yield "", f"too few for some percentiles ({', '.join(missing)}); the slowest run: {slowest}"
    yield "masks", f"Dice and voxels that differ, compared with {measurement.reference}"
    if measurement.no_reference:
        yield "", f"and not with PyTorch: {measurement.no_reference}"
    for index, reason in enumerate(dict.fromkeys(measurement.left_out.values())):
        yield "" if index else "left out", reason


def _context(machine: Mapping[str, Any], bundle: Bundle) -> Iterator[tuple[str, str]]:
    gpu = machine["gpu"]
    where = f"{machine['processor']}, {machine['cpus']} processors" + (f", {gpu['name']}" if gpu else "")
    yield "machine", f"{where}, {machine['system']}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield "bundle", f"{bundle.manifest.name} {bundle.sha256[:12]}, base width {bundle.manifest.config.base_width}"
