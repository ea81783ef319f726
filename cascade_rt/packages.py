"""Importing a package that not every install has."""

import importlib
from typing import Any

from cascade_rt.errors import BackendUnavailableError


def import_package(name: str, *, needed_by: str, extra: str) -> Any:
    """Import a package, or a module of it, that only one thing needs.

    Args:
        name: The package or module.
        needed_by: What needs it, for the message.
        extra: The extra of cascade-rt that installs it.

    Raises:
        BackendUnavailableError: It is not installed, or a shared library that it needs cannot be loaded. A package
            whose own Python imports are broken keeps its own error.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise BackendUnavailableError(
            f"{needed_by} needs a package that is not installed ({package}); run: pip install 'cascade-rt[{extra}]'"
        ) from None
    except (ImportError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(
            f"{needed_by} cannot load {package}, which is installed ({reason}); "
            f"run: pip install --force-reinstall 'cascade-rt[{extra}]'"
        ) from error
