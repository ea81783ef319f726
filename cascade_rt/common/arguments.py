"""What callers pass to the public functions, looked at before the work: a wrong type would show late and oddly."""

import os
from pathlib import Path
from typing import Any

from cascade_rt.errors import UsageError


def check_argument(name: str, given: object, kind: type | tuple[type, ...], what: str) -> None:
    """Refuse an argument of another type.

    Args:
        name: The argument's name.
        given: What was passed.
        kind: Its type, or several.
        what: What it has to be, in words.

    Raises:
        UsageError: It is something else.
    """
    # True is an int, and never meant as one.
    if not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool):
        raise UsageError(f"{name}: is {type(given).__name__}; pass {what}")


def check_function(name: str, given: object, what: str) -> None:
    """Refuse what cannot be called; raises like `check_argument`."""
    if not callable(given):
        raise UsageError(f"{name}: is {type(given).__name__}; pass {what}")


def as_path(name: str, given: Any) -> Path:
    """A path as `Path`; raises like `check_argument` where it is none."""
    check_argument(name, given, (str, os.PathLike), "a path, as text or as a Path")
    return Path(given)
