"""Early validation of arguments to public functions: a wrong type would otherwise fail late and obscurely."""

import os
from pathlib import Path
from typing import Any

from cascade_rt.errors import UsageError


def check_argument(name: str, given: object, kind: type | tuple[type, ...], what: str) -> None:
    """Check the type of an argument.

    Args:
        name: The argument's name.
        given: The value passed.
        kind: The accepted type or types.
        what: Description of what is accepted, for the message.

    Raises:
        UsageError: The value has another type.
    """
    # bool is a subclass of int, but a bool passed for a number is a mistake.
    if not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool):
        raise UsageError(f"{name}: got {type(given).__name__}; pass {what}")


def check_function(name: str, given: object, what: str) -> None:
    """Check that an argument is callable. Raises like `check_argument`."""
    if not callable(given):
        raise UsageError(f"{name}: got {type(given).__name__}; pass {what}")


def as_path(name: str, given: Any) -> Path:
    """Convert a path argument to `Path`. Raises like `check_argument` if it is not a path."""
    check_argument(name, given, (str, os.PathLike), "a path as str or Path")
    return Path(given)
