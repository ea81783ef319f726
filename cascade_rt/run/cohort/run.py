"""A cohort from its first case to its last, with retries."""

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
"""How often a case is tried again after a fault that may pass."""
_FATAL_CODES = frozenset({"E_NOSPACE"})
"""What would happen to all other cases as well."""


@dataclass(slots=True)
class Summary:
    """How a cohort ended."""

    done: int = 0
    skipped: int = 0
    """Done already."""
    failures: dict[str, CascadeError] = field(default_factory=dict)
    """By case."""

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        if outcome.error is not None:
            self.failures[outcome.case.name] = outcome.error
        elif outcome.status == "skipped":
            self.skipped += 1
        else:
            self.done += 1


def run_cohort(
    cases: Sequence[Case],
    ledger: ResumeState,
    runner: Runner,
    *,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> Summary:
    """Compute all cases that are not done already.

    Cases that failed by a fault that may pass are tried again after all others, at most twice. If it is interrupted,
    nothing is left of the cases that were being computed.

    Args:
        cases: The cases.
        ledger: What is known of them.
        runner: What computes them.
        on_outcome: Called when it is settled how a case ended.

    Raises:
        OutputError: There is no room for results, the journal cannot be written, or results were removed meanwhile.
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
        with closing(_one_pass(waiting, ledger, runner, settle)) as outcomes:
            for outcome in outcomes:
                if outcome.is_transient and attempt < MOST_RETRIES:
                    failed.append(outcome.case)
                    continue
                settle(outcome)
                if outcome.error is not None and outcome.error.code in _FATAL_CODES:
                    raise outcome.error
        waiting = failed
    ledger.check_results()
    return summary


def _one_pass(
    cases: Iterable[Case], ledger: ResumeState, runner: Runner, settle: Callable[[Outcome], None]
) -> Generator[Outcome]:
    by_job: dict[Job, Case] = {}

    def jobs() -> Generator[Job]:
        for case in cases:
            outcome = ledger.begin(case)
            if outcome is None:
                by_job[case.job] = case
                yield case.job
            else:
                settle(outcome)

    try:
        with closing(runner(jobs())) as answers:
            for job, answer in answers:
                yield ledger.finish(by_job.pop(job), answer)
    finally:
        ledger.interrupt()
