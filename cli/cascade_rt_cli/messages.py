"""The words of the command line: flags for the library's parameters, short paths, and how to install packages."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

from cascade_rt.common.packages import pip_install
from cascade_rt.common.shown_paths import hide_folders, plain_text, shown_path
from cascade_rt.errors import BackendUnavailableError, CascadeError

_OURS = ("cascade_rt", "cascade_rt_export", "cascade_rt_cli")

_NAMED_OTHERWISE = {
    "calibration": "--calibrate",
    "first_every": "--z-search",
    "half=False": "--no-fp16",
    "output": "-o",
    "require_half=True": "--fp16",
}
_PARAMETERS = (
    "assume_hu",
    "assume_orientation",
    "backend",
    "dataset",
    "device",
    "devices",
    "dicom-seg",
    "dicom-seg-labelmap",
    "dicom-sr",
    "hu_offset",
    "label_flip",
    "labels",
    "limits",
    "mask",
    "max_voxels",
    "organ",
    "overwrite",
    "precision",
    "resume",
    "rtstruct",
    "scattered",
    "series",
    "shard",
    "strict",
    "timeout",
    "tumor",
    "volume",
    "workers",
)
_MENTION = re.compile(rf"`({'|'.join(map(re.escape, _NAMED_OTHERWISE))}|(?:{'|'.join(_PARAMETERS)})(?:=[^`]+)?)`")


def with_flags(message: str) -> str:
    """Replace each parameter by its flag: `max_voxels` by --max-voxels, `backend=pytorch` by --backend pytorch."""
    return _MENTION.sub(_flag, message)


def _flag(mention: re.Match[str]) -> str:
    if mention[1] in _NAMED_OTHERWISE:
        return _NAMED_OTHERWISE[mention[1]]
    name, _, value = mention[1].partition("=")
    flag = f"--{name.replace('_', '-')}"
    return flag if value in {"", "True"} else f"{flag} {value}"


def printable(text: str) -> str:
    """Replace terminal control characters and unprintable characters."""
    return plain_text(text)


def logs_paths() -> bool:
    """Return whether paths are printed in full."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("log_paths"))


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as printed: without folders outside the working folder, unless `--log-paths` is given."""
    return os.fspath(path) if logs_paths() else shown_path(path)


def typed(path: str | os.PathLike[str], placeholder: str) -> str:
    """Return a path for a suggested command: as printed if that resolves to the path, otherwise the placeholder."""
    text = shown(path)
    return printable(text if os.path.abspath(text) == os.path.abspath(path) else placeholder)


def shown_message(message: str, paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return a message on one line, with its paths as printed (see `shown`)."""
    return printable(with_flags(message if logs_paths() else hide_folders(message, paths)))


@contextmanager
def shown_errors(paths: Sequence[str | os.PathLike[str]]) -> Iterator[None]:
    """Rewrite errors raised inside the block, line by line, so that they name these files as printed (see `shown`)."""
    try:
        yield
    except CascadeError as error:
        lines = (shown_message(line, paths) for line in str(error).split("\n"))
        raise type(error)("\n".join(lines), code=error.code) from error


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import in a `with` block or decorated function into a sentence that says how to install it.

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
