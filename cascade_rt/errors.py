"""What can go wrong that is not a bug of ours.

    CascadeError
        UsageError                  the request contradicts itself
        InputError                  a scan, label or case cannot be used
        BundleError                 a bundle or checkpoint is refused
        ParityError                 an exported graph does not compute what the PyTorch model computes
        OutputError                 a result cannot be written
            OutputExistsError       a result is already there
        BackendUnavailableError     an engine cannot run on this machine
            EngineOutOfMemoryError  what it needs does not fit into memory
        EngineBuildError            an engine could not be built, or is not what was asked for
            OutsideProfileError     an input has a shape that an engine was not built for
        EngineError                 an engine ran and returned nonsense
        WorkerError                 the process that worked on a scan crashed or hung
        PartialFailureError         some scans of several failed

Every message says which thing, what is wrong with it, and what to do. The command line catches
`CascadeError` once and turns it into one sentence and `exit_code`; anything else is our bug and keeps its traceback.
"""

from dataclasses import dataclass
from typing import ClassVar


class CascadeError(Exception):
    """Base of every error a caller is meant to handle.

    Args:
        message: Which thing, what is wrong with it, and what to do.
        code: A stable name for what is wrong, such as `E_TRUNCATED`, for scripts; none: that of the class.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "E_CASCADE"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.default_code


class UsageError(CascadeError):
    """The request contradicts itself, or names something that does not exist."""

    exit_code = 2
    default_code = "E_USAGE"


class InputError(CascadeError):
    """A scan, a label or a case cannot be used as it is."""

    exit_code = 4
    default_code = "E_INPUT"


class BundleError(CascadeError):
    """A bundle or a checkpoint is damaged, incomplete or of a kind this version does not know."""

    exit_code = 5
    default_code = "E_BUNDLE"


class ParityError(BundleError):
    """An exported graph does not compute what the PyTorch model computes."""

    default_code = "E_PARITY"


class OutputError(CascadeError):
    """A result cannot be written to where it should go."""

    exit_code = 6
    default_code = "E_OUTPUT"


class BackendUnavailableError(CascadeError):
    """An engine cannot run here: its package, its device or its driver is missing."""

    exit_code = 7
    default_code = "E_BACKEND"


class EngineOutOfMemoryError(BackendUnavailableError):
    """An engine ran out of memory; with a smaller batch, or on another engine, the same scan may fit."""

    default_code = "E_OUT_OF_MEMORY"


class OutsideProfileError(BackendUnavailableError, ValueError):
    """An input has a shape that an engine was not built for; the message has the allowed range."""

    default_code = "E_PROFILE"


class OutputExistsError(OutputError):
    """A result is already there and overwriting it was not asked for."""

    exit_code = 8
    default_code = "E_EXISTS"


class EngineBuildError(CascadeError):
    """An engine could not be built for this device, or the one that was built is not in the precision asked for."""

    exit_code = 7
    default_code = "E_ENGINE_BUILD"


class EngineError(CascadeError):
    """An engine ran and returned something that cannot be a result, or does not compute what was exported."""

    exit_code = 7
    default_code = "E_ENGINE"


class WorkerError(CascadeError):
    """The process that worked on a scan ended without an answer (`E_WORKER_CRASHED`), or had to be (`E_TIMEOUT`)."""

    exit_code = 7
    default_code = "E_WORKER_CRASHED"


class PartialFailureError(CascadeError):
    """Some scans of several failed; the others have their results."""

    exit_code = 3
    default_code = "E_SOME_FAILED"


@dataclass(frozen=True, slots=True)
class InputWarning:
    """Something doubtful about a scan that is used all the same."""

    code: str
    """A stable name for what is doubtful, such as `W_SHEAR`, for scripts."""
    message: str
    """One sentence."""

    def __str__(self) -> str:
        return self.message
