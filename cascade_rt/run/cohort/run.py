"""Run a whole cohort, with retries."""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from cascade_rt.errors import CascadeError
from cascade_rt.run.cohort.cases import Case
from cascade_rt.run.cohort.in_process import Runner
from cascade_rt.run.cohort.resume_state import Outcome, ResumeState
from cascade_rt.run.inference import Job

_log = logging.getLogger(__name__)

MOST_RETRIES = 2
"""Maximum number of retries of a case after a transient error."""
_FATAL_CODES = frozenset({"E_NOSPACE"})
"""Codes of errors that would affect all other cases as well."""


@dataclass(slots=True)
class Summary:
    """Summary of a cohort run."""

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


def run_cohort(
    cases: Sequence[Case],
    state: ResumeState,
    runner: Runner,
    *,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> Summary:
    """Compute all cases that are not finished already.

    Cases that failed with a transient error are retried after all others, at most `MOST_RETRIES` times. If the run is
    interrupted, no outputs remain of the cases that were being computed.

    Args:
        cases: The cases.
        state: Decides which cases to compute, and records their outcomes.
        runner: Computes the cases.
        on_outcome: Called with the final outcome of each case.

    Raises:
        OutputError: The disk is full, the journal cannot be written, or results were removed or changed during the run.
        BackendUnavailableError: No engine can run.
    """
    summary = Summary()

    def settle(outcome: Outcome) -> None:
        summary.add(outcome)
        _log.info("%s: %s", outcome.case.name, outcome.status if outcome.error is None else outcome.error.code)
        on_outcome(outcome)

    waiting: Iterable[Case] = cases
    for attempt in range(1 + MOST_RETRIES):
        failed: list[Case] = []
        with closing(_one_pass(waiting, state, runner, settle)) as outcomes:
            for outcome in outcomes:
                if outcome.is_transient and attempt < MOST_RETRIES:
                    failed.append(outcome.case)
                    continue
                settle(outcome)
                if outcome.error is not None and outcome.error.code in _FATAL_CODES:
                    raise outcome.error
        waiting = failed
    state.check_results()
    return summary


def _one_pass(
    cases: Iterable[Case], state: ResumeState, runner: Runner, settle: Callable[[Outcome], None]
) -> Generator[Outcome]:
    by_job: dict[Job, Case] = {}

    def jobs() -> Generator[Job]:
        for case in cases:
            outcome = state.begin(case)
            if outcome is None:
                by_job[case.job] = case
                yield case.job
            else:
                settle(outcome)

    try:
        with closing(runner(jobs())) as answers:
            for job, answer in answers:
                yield state.finish(by_job.pop(job), answer)
    finally:
        state.interrupt()
