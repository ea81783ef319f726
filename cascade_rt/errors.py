"""Errors that a caller is meant to handle, as opposed to bugs in this package.

    CascadeError
        UsageError                  the request is contradictory or names something that does not exist
        InputError                  a scan, label or case cannot be used
        BundleError                 a bundle or checkpoint is rejected
        ParityError                 an exported graph does not compute what the PyTorch model computes
        OutputError                 a result cannot be written
            OutputExistsError       a result already exists
        BackendUnavailableError     an engine cannot run on this machine
            EngineOutOfMemoryError  an engine needs more memory than is available
        EngineBuildError            an engine could not be built, or is not what was requested
            OutsideProfileError     an input has a shape that an engine was not built for
        EngineError                 an engine ran and returned an invalid result
        WorkerError                 the worker process for a scan crashed or hung
        PartialFailureError         some of several scans failed

Every message names the subject, what is wrong with it, and what to do. The command line catches `CascadeError` in one
place and turns it into one sentence and `exit_code`; any other exception is a bug and keeps its traceback.
"""

from dataclasses import dataclass
from typing import ClassVar


class CascadeError(Exception):
    """Base of every error a caller is meant to handle.

    Args:
        message: The subject, what is wrong with it, and what to do.
        code: A stable error code for scripts, such as `E_TRUNCATED`; None: the default code of the class.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "E_CASCADE"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.default_code


class UsageError(CascadeError):
    """The request is contradictory, or names something that does not exist."""

    exit_code = 2
    default_code = "E_USAGE"


class InputError(CascadeError):
    """A scan, label or case cannot be used as it is."""

    exit_code = 4
    default_code = "E_INPUT"


class BundleError(CascadeError):
    """A bundle or checkpoint is damaged, incomplete or of a kind unknown to this version."""

    exit_code = 5
    default_code = "E_BUNDLE"


class ParityError(BundleError):
    """An exported graph does not compute what the PyTorch model computes."""

    default_code = "E_PARITY"


class OutputError(CascadeError):
    """A result cannot be written to its destination."""

    exit_code = 6
    default_code = "E_OUTPUT"


class BackendUnavailableError(CascadeError):
    """An engine cannot run here: its package, device or driver is missing."""

    exit_code = 7
    default_code = "E_BACKEND"


class EngineOutOfMemoryError(BackendUnavailableError):
    """An engine ran out of memory. The same scan may fit with a smaller batch or on another engine."""

    default_code = "E_OUT_OF_MEMORY"


class OutsideProfileError(BackendUnavailableError, ValueError):
    """An input has a shape that an engine was not built for. The message gives the allowed range."""

    default_code = "E_PROFILE"


class OutputExistsError(OutputError):
    """A result already exists, and overwriting was not requested."""

    exit_code = 8
    default_code = "E_EXISTS"


class EngineBuildError(CascadeError):
    """An engine could not be built for this device, or the built engine does not have the requested precision."""

    exit_code = 7
    default_code = "E_ENGINE_BUILD"


class EngineError(CascadeError):
    """An engine ran and returned an invalid result, or does not compute what was exported."""

    exit_code = 7
    default_code = "E_ENGINE"


class WorkerError(CascadeError):
    """The worker process for a scan died without an answer (`E_WORKER_CRASHED`) or timed out (`E_TIMEOUT`)."""

    exit_code = 7
    default_code = "E_WORKER_CRASHED"


class PartialFailureError(CascadeError):
    """Some of several scans failed; the others have their results."""

    exit_code = 3
    default_code = "E_SOME_FAILED"


@dataclass(frozen=True, slots=True)
class InputWarning:
    """Something doubtful about a scan that is processed anyway."""

    code: str
    """A stable warning code for scripts, such as `W_SHEAR`."""
    message: str
    """One sentence."""

    def __str__(self) -> str:
        return self.message
