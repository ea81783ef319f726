"""What came of one scan, in a form that passes from process to process."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cascade_rt.errors import CascadeError, EngineOutOfMemoryError, WorkerError
from cascade_rt.results.segmentation import Segmentation

_PASSING = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "ENOTCONN", "EAGAIN")
    if hasattr(errno, name)
)
"""What disks and network file systems say that may be better the next time."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What came of one scan: a report, or an error."""

    report: Mapping[str, Any] | None = None
    error: CascadeError | None = None
    is_transient: bool = False
    """Whether the error may be gone the next time."""

    @classmethod
    def of(cls, outcome: Segmentation | CascadeError) -> Self:
        """The answer for what `infer_files` yields."""
        if isinstance(outcome, CascadeError):
            return cls(error=outcome, is_transient=is_transient(outcome))
        return cls(report=outcome.to_json())


def is_transient(error: CascadeError) -> bool:
    """Whether an error may be gone the next time: a crash, a lack of memory, a disk that failed; never bad data."""
    if isinstance(error, EngineOutOfMemoryError):
        return True
    if isinstance(error, WorkerError):
        return error.code == WorkerError.default_code
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return True
        cause = cause.__cause__
    return False
