"""Importing the package behind an engine."""

import importlib
from typing import Any

from cascade_rt.errors import BackendUnavailableError


def import_package(name: str, *, backend: str, extra: str) -> Any:
    """Import a package that only one backend needs.

    Args:
        name: The package.
        backend: The backend that needs it, for the message.
        extra: The extra of cascade-rt that installs it.

    Raises:
        BackendUnavailableError: It is not installed. A package that is there but broken keeps its own error.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        raise BackendUnavailableError(
            f"backend {backend!r} needs a package that is not installed ({name}); "
            f"run: pip install 'cascade-rt[{extra}]'"
        ) from None
