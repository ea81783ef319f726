"""What `cascade-rt infer` prints: progress, what became of each scan, and a summary."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cascade_rt.bundles.bundle import Manifest
from cascade_rt.errors import PartialFailureError
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.cases import Shard
from cascade_rt.run.cohort.journal import journal_path
from cascade_rt.run.cohort.outcome import Outcome
from cascade_rt.run.cohort.results_table import CaseRow, read_results, results_path, write_results
from cascade_rt.run.cohort.run import Summary
from cascade_rt_cli.console import paused, print_rows, progress_bar, results_console, shown_progress
from cascade_rt_cli.findings import findings_line, print_findings, print_intended_use
from cascade_rt_cli.messages import printable, shown, shown_message
from cascade_rt_cli.output import is_json, is_quiet, print_event, print_note
from cascade_rt_cli.summarize import errors_of, headline, status_rows, warnings_of

if TYPE_CHECKING:
    from cascade_rt.scans.source import ScanSource

_MOST_SHOWN = 20
"""Maximum number of failures listed at the end. The journal has all of them."""


class ScanOutput:
    """Output of a run over named scans: a bar of the slices of each, and its findings as a table."""

    def __init__(self, cases: Sequence[Case], *, overwrite: bool) -> None:
        self._cases = cases
        self._overwrite = overwrite
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._bars = self._stack.enter_context(progress_bar(shown=not is_json()))
        self._bar = self._bars.add_task(escape(printable(self._cases[0].scan.name)), total=None)
        return self

    def __exit__(self, *ended: object) -> None:
        self._stack.close()

    def open(self, scan: "ScanSource") -> None:
        """Begin with the slices of a scan."""
        self._bars.reset(self._bar, total=len(scan.voxels), description=escape(printable(scan.name)))

    def advance(self, slices: int) -> None:
        """Show that slices have been finished."""
        self._bars.advance(self._bar, slices)

    def tell(self, outcome: Outcome) -> None:
        """Print what became of a scan. The error of the only scan is left for the end of the command."""
        if outcome.error is not None:
            if self._overwrite and os.path.lexists(outcome.case.mask):
                print_note(f"{shown(outcome.case.mask)}: is still from an earlier run")
            if len(self._cases) == 1:
                return
        with paused(self._bars):
            if is_json():
                _print_event(outcome)
            elif outcome.report is not None:
                console = results_console()
                print_findings(console, outcome.case, outcome.report)
                print_intended_use(console, outcome.report["provenance"]["bundle"])

    def conclude(self, summary: Summary) -> None:
        """Raise the error of the only scan, or PartialFailureError if some of several failed."""
        if len(self._cases) == 1 and summary.failures:
            raise summary.failures[self._cases[0].name]
        _raise_failures(summary, self._cases, most=len(self._cases))


class CohortOutput:
    """Output of a run that keeps a journal: a bar of scans, the findings in each on a line, and a summary."""

    def __init__(self, cases: Sequence[Case], manifest: Manifest, folder: Path, part: Shard | None) -> None:
        self._cases = cases
        self._bundle = {"name": manifest.name, "intended_use": manifest.intended_use}
        self._folder, self._part = folder, part
        self._console = results_console()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
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
        self._bars = self._stack.enter_context(shown_progress(bars, shown=not is_json()))
        self._bar = self._bars.add_task("scans", total=len(self._cases))
        return self

    def __exit__(self, *ended: object) -> None:
        self._stack.close()

    def open(self, scan: "ScanSource") -> None:
        """Show nothing: the bar counts scans."""

    def advance(self, slices: int) -> None:
        """Show nothing: the bar counts scans."""

    def tell(self, outcome: Outcome) -> None:
        """Print what became of a scan."""
        if outcome.status == "skipped":
            # Skipping takes no time and would inflate the displayed throughput.
            self._bars.update(self._bar, total=(self._bars.tasks[0].total or 0) - 1)
        else:
            self._bars.advance(self._bar)
        with paused(self._bars):
            if is_json():
                _print_event(outcome)
            elif outcome.report is not None:
                self._console.print(f"{printable(outcome.case.name)}: {findings_line(outcome.report)}")
            elif outcome.error is not None:
                self._console.print(f"{printable(outcome.case.name)}: failed [{outcome.error.code}]")

    def conclude(self, summary: Summary) -> None:
        """Write the table of the cohort and print counts by what was found, by error and by warning.

        Raises:
            PartialFailureError: Some cases failed.
            OutputError: The table cannot be written.
        """
        table = results_path(self._folder, self._part)
        rows = read_results(self._folder, self._part, summary.failures)
        write_results(rows, table)
        names = {case.name for case in self._cases}
        ours = [_of_this_run(row, summary) for row in rows if row.case in names]
        if is_json():
            _print_summary_event(summary, ours, table)
        else:
            self._console.print(headline(ours), style="bold")
            print_rows(self._console, [*self._counts(summary, ours), ("table", shown(table))], indent=2)
            print_intended_use(self._console, self._bundle)
        _raise_failures(summary, self._cases, most=_MOST_SHOWN)

    def _counts(self, summary: Summary, ours: Sequence[CaseRow]) -> Iterator[tuple[str, str]]:
        yield from status_rows(ours)
        for code, names in errors_of(ours).items():
            yield "failed", f"{len(names)} with {code}"
        for code, names in warnings_of(ours).items():
            yield "warned", f"{len(names)} with {code}"
        if summary.skipped:
            yield "already done", str(summary.skipped)
        yield "journal", shown(journal_path(self._folder, self._part))


class _Rate(ProgressColumn):
    """Throughput in scans per minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed * 60:.1f} scans/min")


def warn(message: str) -> None:
    """Print a warning on stderr."""
    if is_json():
        print_event("warning", err=True, message=message)
    else:
        click.echo(f"cascade-rt: warning: {printable(message)}", err=True)


def warn_left_out(folder: Path, what: str) -> None:
    """Warn that images in a folder are not read."""
    if not is_quiet():
        warn(f"{shown(folder)}: skipped, because only NIfTI, NRRD, MetaImage and CT series in DICOM are read: {what}")


def _print_event(outcome: Outcome) -> None:
    case, error = outcome.case, outcome.error
    if error is not None:
        failure = {"code": error.code, "message": _message(outcome.case, error), "exit_code": error.exit_code}
        print_event("failed", err=True, case=case.name, **failure, attempts=outcome.attempt)
    elif outcome.report is None:
        print_event("skipped", case=case.name)
    else:
        print_event("done", case=case.name, attempts=outcome.attempt, report=outcome.report)


def _of_this_run(row: CaseRow, summary: Summary) -> CaseRow:
    """Return the row of a case, as failed if this run could not replace the result of an earlier one."""
    error = summary.failures.get(row.case)
    return row if error is None else CaseRow(row.case, "failed", error_code=error.code, attempts=row.attempts)


def _print_summary_event(summary: Summary, ours: Sequence[CaseRow], table: Path) -> None:
    print_event(
        "summary",
        total=len(ours),
        done=summary.done,
        skipped=summary.skipped,
        failed=len(summary.failures),
        statuses=Counter(row.status for row in ours),
        errors={code: len(names) for code, names in errors_of(ours).items()},
        warnings={code: len(names) for code, names in warnings_of(ours).items()},
        table=shown(table),
    )


def _raise_failures(summary: Summary, cases: Sequence[Case], *, most: int) -> None:
    """Raise PartialFailureError if cases failed. The message says which and why."""
    failed = [case for case in cases if case.name in summary.failures]
    if not failed:
        return
    headline = f"{len(failed)} of {len(cases)} scans failed"
    if is_json():
        raise PartialFailureError(headline)
    lines = [_message(case, summary.failures[case.name]) for case in failed[:most]]
    more = len(failed) - most
    lines += [f"and {more} more; see the journal"] if more > 0 else []
    raise PartialFailureError("\n  ".join([headline, *lines]))


def _message(case: Case, error: Exception) -> str:
    return shown_message(str(error), (case.scan, *case.results))
