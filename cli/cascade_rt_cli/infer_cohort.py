"""Run a cascade on a cohort: check everything first, show progress, then print a summary table."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cascade_rt.bundles.bundle import default_bundle_path, read_bundle
from cascade_rt.common.outputs import make_folder, probe_folder
from cascade_rt.common.version import __version__
from cascade_rt.engines import BackendChoice, PrecisionChoice
from cascade_rt.errors import PartialFailureError, UsageError
from cascade_rt.results.segmentation import STATUS_SENTENCES
from cascade_rt.run.cohort.cases import Case, Shard, of_shard, plan_cases
from cascade_rt.run.cohort.in_process import Runner, run_here
from cascade_rt.run.cohort.journal import Journal
from cascade_rt.run.cohort.resume_state import Outcome, ResumeState
from cascade_rt.run.cohort.run import Summary, run_cohort
from cascade_rt.run.cohort.workers import run_in_workers
from cascade_rt.run.fallback import open_fallback_cascade
from cascade_rt.scans.nifti import split_suffix
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.search import SearchOptions
from cascade_rt_cli.console import print_rows, results_console, shown_progress, volume_text
from cascade_rt_cli.messages import printable, shown, shown_message
from cascade_rt_cli.output import is_json, is_quiet, print_event, print_note
from cascade_rt_cli.plans import plans

_MOST_SHOWN = 20
"""Maximum number of failures listed at the end. The journal has all of them."""


@dataclass(frozen=True, slots=True)
class CohortOptions:
    """How the cases of a cohort are computed. None of these options changes a mask."""

    resume: bool = False
    overwrite: bool = False
    shard: Shard | None = None
    workers: int = 0
    """Number of worker processes, or 0 to run in this process."""
    timeout: float | None = None
    """Seconds without progress after which a worker is killed, or None for the default."""


def infer_cohort(
    sources: Sequence[Path],
    output: Path | None,
    bundle: Path | None,
    backend: BackendChoice,
    precision: PrecisionChoice,
    how: CohortOptions,
    reading: ScanOptions,
    search: SearchOptions,
    *,
    public_key: Path | None,
    pictures: bool,
) -> None:
    """Segment the scans in folders and lists, and keep a journal in the output folder.

    Raises:
        UsageError: The options contradict each other.
        PartialFailureError: Some scans failed. The message says which and why.
        CascadeError: No more scans can be computed or written.
    """
    folder = _folder_of_results(output)
    planned = plan_cases(sources, folder, pictures=pictures, on_left_out=_tell_left_out)
    cases = of_shard(planned, how.shard)
    opened = read_bundle(default_bundle_path() if bundle is None else bundle, public_key)
    make_folder(folder)
    probe_folder(folder)
    settings = {
        "version": __version__,
        "bundle": opened.sha256,
        "backend": backend,
        "precision": precision,
        "preview": pictures,
        "reading": asdict(reading),
        "search": asdict(search),
    }
    engines = (bundle, backend, precision, plans, public_key)
    open_cascade = partial(open_fallback_cascade, *engines, bundle_sha256=opened.sha256)
    where = f"in {how.workers} processes" if how.workers else "in this process"
    print_note(f"{len(cases)} scans, bundle {opened.manifest.name}, backend {backend}, precision {precision}, {where}")
    with Journal(folder, how.shard) as journal, _progress(len(cases)) as show:
        if not journal.is_locked:
            _warn(f"{shown(folder)}: nothing keeps other runs out on this file system; see to it that there is none")
        state = ResumeState(folder, journal, settings, resume=how.resume, overwrite=how.overwrite)
        summary = run_cohort(cases, state, _runner(open_cascade, how, reading=reading, search=search), on_outcome=show)
    _conclude(summary, cases, journal.path, opened.manifest.name, opened.manifest.intended_use)


def _tell_left_out(folder: Path, what: str) -> None:
    if not is_quiet():
        _warn(f"{shown(folder)}: not read, for only .nii and .nii.gz are: {what}")


def _warn(message: str) -> None:
    if is_json():
        print_event("warning", err=True, message=message)
    else:
        click.echo(f"cascade-rt: warning: {printable(message)}", err=True)


def _folder_of_results(output: Path | None) -> Path:
    if output is None:
        raise UsageError("a cohort has many results; name a folder for them with -o")
    if split_suffix(output.name)[1] and not output.is_dir():
        raise UsageError(f"{output}: is one file for many scans; name a folder")
    return output


def _runner(open_cascade: Any, how: CohortOptions, **options: Any) -> Runner:
    options["overwrite"] = how.overwrite
    if how.workers == 0:
        return run_here(open_cascade, **options)
    if how.timeout is None:
        return run_in_workers(open_cascade, how.workers, **options)
    return run_in_workers(open_cascade, how.workers, timeout=how.timeout, **options)


class _Rate(ProgressColumn):
    """Throughput in scans per minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed * 60:.1f} scans/min")


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Print each outcome on a line, with a progress bar for the cohort below them on a terminal."""
    results = results_console()
    columns = (
        TextColumn("scans"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=600)
    with shown_progress(bars, shown=not is_json()) as progress:
        bar = progress.add_task("scans", total=total)
        yield lambda outcome: _show(outcome, progress, bar, results)


def _show(outcome: Outcome, progress: Progress, bar: TaskID, results: Console) -> None:
    if outcome.status == "skipped":
        # Skipping takes no time and would inflate the displayed throughput.
        progress.update(bar, total=(progress.tasks[0].total or 0) - 1)
    else:
        progress.advance(bar)
    if is_json():
        _print_outcome(outcome)
    elif outcome.report is not None:
        results.print(f"{printable(outcome.case.name)}: {_found(outcome.report)}")
    elif outcome.error is not None:
        results.print(f"{printable(outcome.case.name)}: failed [{outcome.error.code}]")


def _found(report: Mapping[str, Any]) -> str:
    volumes = {"pancreas": report["volumes_ml"]["pancreas"], "tumor": report["volumes_ml"]["tumor"]}
    told = ", ".join(f"{name} {volume_text(volume)}" for name, volume in volumes.items() if volume is not None)
    seconds = report["wall_s"]
    doubts = f", {len(report['warnings'])} warnings" if report["warnings"] else ""
    return f"{STATUS_SENTENCES[report['status']]}; {told}; {seconds:.2f} s{doubts}"


def _print_outcome(outcome: Outcome) -> None:
    case: Case = outcome.case
    if outcome.error is not None:
        error = outcome.error
        print_event(
            "failed",
            err=True,
            case=case.name,
            code=error.code,
            message=shown_message(str(error), _paths(case)),
            exit_code=error.exit_code,
            attempts=outcome.attempt,
        )
    elif outcome.report is None:
        print_event("skipped", case=case.name)
    else:
        print_event("done", case=case.name, attempts=outcome.attempt, report=outcome.report)


def _conclude(summary: Summary, cases: Sequence[Case], journal: Path, bundle: str, intended_use: str) -> None:
    """Print the summary of the run.

    Raises:
        PartialFailureError: Some cases failed.
    """
    total = len(cases)
    if is_json():
        failed = len(summary.failures)
        print_event("summary", total=total, done=summary.done, skipped=summary.skipped, failed=failed)
    else:
        console = results_console()
        codes = Counter(error.code for error in summary.failures.values())
        rows = [("segmented", str(summary.done)), ("done before", str(summary.skipped))]
        rows += [("failed", f"{count} with {code}") for code, count in codes.most_common()]
        console.print(f"{total} scans", style="bold")
        print_rows(console, [*rows, ("journal", shown(journal))], indent=2)
        console.print(f"Bundle {bundle}: {intended_use}", style="yellow")
    if not summary.failures:
        return
    headline = f"{len(summary.failures)} of {total} scans failed"
    if is_json():
        raise PartialFailureError(headline)
    those = [case for case in cases if case.name in summary.failures]
    lines = [shown_message(str(summary.failures[case.name]), _paths(case)) for case in those[:_MOST_SHOWN]]
    more = len(those) - _MOST_SHOWN
    lines += [f"and {more} more, see the journal"] if more > 0 else []
    raise PartialFailureError("\n  ".join([headline, *lines]))


def _paths(case: Case) -> tuple[Path, ...]:
    """Return the paths that an error of a case may name."""
    return case.job.scan, *case.job.results
