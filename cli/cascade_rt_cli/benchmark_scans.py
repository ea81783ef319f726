"""Run a benchmark: check everything first, show progress, then print the table and write the output files."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade_rt.bundles.bundle import Bundle, default_bundle_path, read_bundle
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.outputs import check_files
from cascade_rt.measuring.benchmarking.arms import Arm, all_arms, parse_arms
from cascade_rt.measuring.benchmarking.cascade_runner import runners
from cascade_rt.measuring.benchmarking.chart import bar_of, save_chart
from cascade_rt.measuring.benchmarking.machine import describe_machine
from cascade_rt.measuring.benchmarking.measure import Measurement, Progress, Reference, Schedule, measure
from cascade_rt.measuring.benchmarking.report import as_text, describe_bundle, measurement_lines
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt_cli.benchmark_tables import print_benchmark
from cascade_rt_cli.console import progress_bar, results_console
from cascade_rt_cli.plans import plans
from cascade_rt_cli.verbosity import print_note

REFERENCE = Arm("pytorch", "fp32")
"""The arm whose masks the others are compared with: the baseline that training used."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The requested output files."""

    lines: Path | None
    chart: Path | None
    overwrite: bool

    def check(self, scans: Sequence[Path]) -> None:
        """Check before the work begins that the files can be written.

        Raises:
            UsageError: Both are the same file, or one of them is an input.
            OutputError: One of them cannot be written, or already exists.
        """
        check_files((self.lines, self.chart), scans, overwrite=self.overwrite)


def benchmark_scans(
    scans: Sequence[Path],
    backends: str | None,
    bundle: Path | None,
    schedule: Schedule,
    outputs: Outputs,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
) -> None:
    """Measure the arms, write the requested files and print the results.

    Raises:
        UsageError: An arm is unknown.
        InputError: A scan cannot be used.
        BackendUnavailableError: An arm that was named, or every arm, cannot run here.
        OutputError: A file cannot be written.
    """
    arms = all_arms() if backends is None else parse_arms(backends)
    outputs.check(scans)
    opened = read_bundle(default_bundle_path() if bundle is None else bundle)
    names = ", ".join(arm.name for arm in arms)
    print_note(f"measuring {len(scans)} scans in {schedule.rounds} rounds, bundle {opened.manifest.name}, with {names}")
    measurement = _measure_with_progress(scans, arms, opened, schedule, reading, all_must_run=backends is not None)
    machine = describe_machine()
    if outputs.lines is not None:
        context = {"machine": machine, "bundle": describe_bundle(opened)}
        lines = as_text(measurement_lines(measurement, schedule, context))
        write_bytes(outputs.lines, lines.encode(), overwrite=outputs.overwrite)
    if outputs.chart is not None:
        title = "seconds from file to file, mean of all runs"
        save_chart([bar_of(arm) for arm in measurement.arms], title, outputs.chart, overwrite=outputs.overwrite)
    print_benchmark(results_console(), measurement, machine, opened)


def _measure_with_progress(
    scans: Sequence[Path],
    arms: tuple[Arm, ...],
    bundle: Bundle,
    schedule: Schedule,
    reading: ScanOptions,
    *,
    all_must_run: bool,
) -> Measurement:
    reference = Reference(REFERENCE.name, runners(bundle.path, (REFERENCE,), reading=reading)[REFERENCE.name])
    with tempfile.TemporaryDirectory(prefix="cascade-rt-benchmark-") as folder, progress_bar() as bars:
        bar = bars.add_task("", total=len(arms) * len(scans) * schedule.rounds)
        progress = Progress(
            on_step=lambda text: bars.update(bar, description=text),
            on_run=lambda: bars.advance(bar),
        )
        return measure(
            runners(bundle.path, arms, plans, reading),
            scans,
            schedule,
            Path(folder),
            reference,
            all_must_run=all_must_run,
            progress=progress,
            reading=reading,
        )
