"""What became of a case."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cascade_rt.errors import CascadeError
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.task_result import TaskResult


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one case."""

    case: Case
    status: Literal["done", "skipped", "failed"]
    report: Mapping[str, Any] | None = None
    """Set if the case is done."""
    error: CascadeError | None = None
    """Set if the case failed."""
    is_transient: bool = False
    attempt: int = 1

    @classmethod
    def of(cls, case: Case, result: TaskResult, attempt: int = 1) -> "Outcome":
        """Return the outcome of a case that was computed."""
        status: Literal["done", "failed"] = "done" if result.error is None else "failed"
        return cls(case, status, result.report, result.error, result.is_transient, attempt)


class WithoutJournal:
    """Stands in for `ResumeState` if no journal is kept: every case is computed, and nothing is recorded."""

    def begin(self, case: Case) -> Outcome | None:
        """Return the outcome of a refused case, otherwise None."""
        return None if case.refusal is None else Outcome(case, "failed", error=case.refusal)

    def finish(self, case: Case, result: TaskResult) -> Outcome:
        """Return the outcome of a case."""
        return Outcome.of(case, result)

    def interrupt(self) -> None:
        """Nothing to record."""

    def check_results(self) -> None:
        """Nothing was recorded to check."""
