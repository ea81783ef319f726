"""The result of one scan, in a form that passes between processes."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cascade_rt.common.hashing import FileState
from cascade_rt.errors import CascadeError, EngineOutOfMemoryError, WorkerError
from cascade_rt.results.segmentation import Segmentation

_TRANSIENT_ERRNOS = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "ENOTCONN", "EAGAIN")
    if hasattr(errno, name)
)
"""Errors of disks and network file systems that may not recur on a retry."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of one scan: a report or an error."""

    report: Mapping[str, Any] | None = None
    error: CascadeError | None = None
    is_transient: bool = False
    """Whether a retry may succeed."""
    files: Mapping[Path, FileState] = field(default_factory=dict)
    """The files of the result, as they were written."""

    @classmethod
    def of(cls, outcome: Segmentation | CascadeError) -> Self:
        """Convert an outcome that `infer_files` yields."""
        if isinstance(outcome, CascadeError):
            result = cls(error=outcome, is_transient=is_transient(outcome))
            _drop_tracebacks(outcome)
            return result
        return cls(report=outcome.to_json(), files=outcome.result_files)


def _drop_tracebacks(error: BaseException | None) -> None:
    """Free what the frames of an error refer to, such as the voxels of its scan: the error is kept to the end."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def is_transient(error: CascadeError) -> bool:
    """Return whether a retry may succeed: after a crash, an out-of-memory or a disk error, but never for bad data."""
    if isinstance(error, EngineOutOfMemoryError):
        return True
    if isinstance(error, WorkerError):
        return error.code == WorkerError.default_code
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _TRANSIENT_ERRNOS:
            return True
        cause = cause.__cause__
    return False
