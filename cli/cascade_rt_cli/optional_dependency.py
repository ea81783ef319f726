"""Support for commands that need optional dependencies."""

from collections.abc import Iterator
from contextlib import contextmanager

from cascade_rt.common.packages import pip_install
from cascade_rt.errors import BackendUnavailableError

_OURS = ("cascade_rt", "cascade_rt_export", "cascade_rt_cli")


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import inside the `with` block into a sentence that says how to install the package.

    Raises:
        BackendUnavailableError: A third-party package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OURS:
            raise
        raise BackendUnavailableError(
            f"this command needs a package that is not installed ({package}); run: {pip_install(extra)}"
        ) from None
