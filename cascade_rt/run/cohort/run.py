"""Run cases: one or many, in this process or in others, with retries."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

from cascade_rt.errors import CascadeError
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.outcome import Outcome, WithoutJournal
from cascade_rt.run.cohort.resume_state import ResumeState
from cascade_rt.run.cohort.task_result import TaskResult
from cascade_rt.run.inference import DEFAULT_RUN_OPTIONS, RunOptions, infer_files
from cascade_rt.scans.source import ScanSource

_log = logging.getLogger(__name__)

MOST_RETRIES = 2
"""Maximum number of retries of a case after a transient error."""
_FATAL_CODES = frozenset({"E_NOSPACE"})
"""Codes of errors that would affect all other cases as well."""


@dataclass(slots=True)
class Summary:
    """Summary of a run."""

    done: int = 0
    skipped: int = 0
    """Finished by an earlier run."""
    failures: dict[str, CascadeError] = field(default_factory=dict)
    """Errors by case name."""

    def add(self, outcome: Outcome) -> None:
        """Add an outcome to the counts."""
        if outcome.error is not None:
            self.failures[outcome.case.name] = outcome.error
        elif outcome.status == "skipped":
            self.skipped += 1
        else:
            self.done += 1


Runner = Callable[[Iterable[Case]], Generator[tuple[Case, TaskResult]]]
"""Computes cases in any order, taking each from the iterable only when it can start."""


def run_here(
    open_cascade: Callable[[], Cascade],
    options: RunOptions = DEFAULT_RUN_OPTIONS,
    *,
    on_open: Callable[[ScanSource], None] = lambda _: None,
    on_slices: Callable[[int], None] = lambda _: None,
) -> Runner:
    """Return a runner that works in this process, and opens the cascade only if there is anything to compute.

    Args:
        open_cascade: Opens the cascade.
        options: How scans are read, searched and written.
        on_open: See `infer_files`.
        on_slices: See `infer_files`.
    """

    def run(cases: Iterable[Case]) -> Generator[tuple[Case, TaskResult]]:
        waiting = iter(cases)
        for first in waiting:
            with open_cascade() as cascade:
                here = chain([first], waiting)
                for case, outcome in infer_files(cascade, here, options, on_open=on_open, on_slices=on_slices):
                    yield case, TaskResult.of(outcome)

    return run


def run_cases(
    cases: Sequence[Case],
    runner: Runner,
    state: ResumeState | None = None,
    *,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> Summary:
    """Compute all cases that are not finished already.

    With a journal, cases that failed with a transient error are retried after all others, at most `MOST_RETRIES` times,
    and an error that would affect all other cases ends the run. If the run is interrupted, no outputs remain of the
    cases that were being computed.

    Args:
        cases: The cases.
        runner: Computes the cases.
        state: Decides which cases to compute, and records their outcomes; None to compute all and keep no journal.
        on_outcome: Called with the final outcome of each case.

    Raises:
        OutputError: The disk is full, the journal cannot be written, or results were removed or changed during the run.
        BackendUnavailableError: No engine can run.
    """
    tracker, summary = state or WithoutJournal(), Summary()

    def settle(outcome: Outcome) -> None:
        summary.add(outcome)
        _log.info("%s: %s", outcome.case.name, outcome.status if outcome.error is None else outcome.error.code)
        on_outcome(outcome)

    def begun(waiting: Iterable[Case]) -> Iterator[Case]:
        for case in waiting:
            outcome = tracker.begin(case)
            if outcome is None:
                yield case
            else:
                settle(outcome)

    waiting: Sequence[Case] = cases
    # Whoever waits for a few scans learns sooner from an error than from two more attempts.
    retries = 0 if state is None else MOST_RETRIES
    for attempt in range(1 + retries):
        failed: list[Case] = []
        try:
            with closing(runner(begun(waiting))) as results:
                for case, result in results:
                    outcome = tracker.finish(case, result)
                    if outcome.is_transient and attempt < retries:
                        failed.append(case)
                        continue
                    settle(outcome)
                    if state is not None and outcome.error is not None and outcome.error.code in _FATAL_CODES:
                        raise outcome.error
        finally:
            tracker.interrupt()
        waiting = failed
    tracker.check_results()
    return summary
