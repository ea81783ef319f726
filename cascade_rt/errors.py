"""What can go wrong that is not a bug of ours.

    CascadeError
        UsageError                  the request contradicts itself
        InputError                  a scan, label or case cannot be used
        BundleError                 a bundle or checkpoint is refused
        ParityError                 an exported graph does not compute what the PyTorch model computes
        OutputError                 a result cannot be written
            OutputExistsError       a result is already there
        BackendUnavailableError     an engine cannot run on this machine
        EngineBuildError            an engine could not be built, or is not what was asked for
            OutsideProfileError     an input has a shape that an engine was not built for
        EngineError                 an engine ran and returned nonsense
        PartialFailureError         some scans of several failed

Every message says which thing, what is wrong with it, and what to do. The command line catches
`CascadeError` once and turns it into one sentence and `exit_code`; anything else is our bug and keeps its traceback.
"""

from typing import ClassVar


class CascadeError(Exception):
    """Base of every error a caller is meant to handle."""

    exit_code: ClassVar[int] = 1


class UsageError(CascadeError):
    """The request contradicts itself, or names something that does not exist."""

    exit_code = 2


class InputError(CascadeError):
    """A scan, a label or a case cannot be used as it is."""

    exit_code = 4


class BundleError(CascadeError):
    """A bundle or a checkpoint is damaged, incomplete or of a kind this version does not know."""

    exit_code = 5


class ParityError(BundleError):
    """An exported graph does not compute what the PyTorch model computes."""


class OutputError(CascadeError):
    """A result cannot be written to where it should go."""

    exit_code = 6


class BackendUnavailableError(CascadeError):
    """An engine cannot run here: its package, its device or its driver is missing."""

    exit_code = 7


class OutsideProfileError(BackendUnavailableError, ValueError):
    """An input has a shape that an engine was not built for; the message has the allowed range."""


class OutputExistsError(OutputError):
    """A result is already there and overwriting it was not asked for."""

    exit_code = 8


class EngineBuildError(CascadeError):
    """An engine could not be built for this device, or the one that was built is not in the precision asked for."""

    exit_code = 7


class EngineError(CascadeError):
    """An engine ran and returned something that cannot be a result."""


class PartialFailureError(CascadeError):
    """Some scans of several failed; the others have their results."""

    exit_code = 3
