"""Import the package that an engine needs."""

from typing import Any

from cascade_rt.common import packages


def import_package(name: str, *, backend: str, extra: str) -> Any:
    """Import a package that only one backend needs.

    Args:
        name: Name of the package.
        backend: The backend that needs it, for the error message.
        extra: The extra of cascade-rt that installs it.

    Raises:
        BackendUnavailableError: The package is not installed, or a shared library that it needs cannot be loaded.
    """
    return packages.import_package(name, needed_by=f"backend {backend!r}", extra=extra)
