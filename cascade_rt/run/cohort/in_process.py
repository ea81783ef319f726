"""Segment scans in this process, one after the other."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import chain
from typing import Any

from cascade_rt.errors import CascadeError, EngineOutOfMemoryError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cohort.task_result import TaskResult
from cascade_rt.run.fallback import FallbackCascade
from cascade_rt.run.inference import Job, infer_files

Runner = Callable[[Iterable[Job]], Generator[tuple[Job, TaskResult]]]
"""Runs jobs in any order, taking each from the iterable only when it can start."""


def run_here(open_cascade: Callable[[], FallbackCascade], **options: Any) -> Runner:
    """Return a runner that works in this process and opens the cascade on demand.

    Args:
        open_cascade: Opens the cascade.
        options: Passed to `infer_files`.
    """

    def run(jobs: Iterable[Job]) -> Generator[tuple[Job, TaskResult]]:
        waiting = iter(jobs)
        for first in waiting:
            with open_cascade() as cascade:
                for job, outcome in segment_files(cascade, chain([first], waiting), **options):
                    yield job, TaskResult.of(outcome)

    return run


def segment_files(
    cascade: FallbackCascade, jobs: Iterable[Job], **options: Any
) -> Generator[tuple[Job, Segmentation | CascadeError]]:
    """Segment scan files one after the other. A scan that runs out of memory is retried with the fallbacks.

    Args:
        cascade: An open cascade.
        jobs: The scans and where their results go.
        options: Passed to `infer_files`.
    """
    for job, outcome in infer_files(cascade, jobs, **options):
        if isinstance(outcome, EngineOutOfMemoryError):
            yield job, _with_less_memory(cascade, job, outcome, **options)
        else:
            yield job, outcome


def _with_less_memory(
    cascade: FallbackCascade, job: Job, outcome: Segmentation | CascadeError, **options: Any
) -> Segmentation | CascadeError:
    with closing(cascade.fallbacks()) as fallbacks:
        for _ in fallbacks:
            ((_, outcome),) = infer_files(cascade, [job], **options)
            if not isinstance(outcome, EngineOutOfMemoryError):
                break
    return outcome
