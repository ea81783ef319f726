"""Output paths: checked before the work begins, created when it is done. Used by every command and function."""

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from cascade_rt.errors import OutputError, OutputExistsError, UsageError

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk is full, the quota is exceeded, or the file would be too large."""


def check_files(files: Iterable[Path | None], inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Check before the work begins that each of these files can be written; None stands for a file not requested.

    Raises:
        UsageError: Two of them are the same file, or one is an input (`E_SAME_FILE`).
        OutputError: A file or its folder cannot be written.
        OutputExistsError: A file exists and `overwrite` is off.
    """
    wanted = [file for file in files if file is not None]
    taken: dict[str, Path] = {}
    for file in wanted:
        other = taken.setdefault(os.path.realpath(file), file)
        if other is not file:
            raise UsageError(f"{file}: is used for two results; choose a different name for each")
    refuse_inputs(wanted, inputs)
    for file in wanted:
        check_file(file, overwrite=overwrite)
        probe_folder(file.absolute().parent)


def refuse_inputs(results: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise UsageError (`E_SAME_FILE`) if a result would overwrite an input, even through a link."""
    known = {identity for path in inputs for identity in _identities(path)}
    for result in results:
        if not known.isdisjoint(_identities(result)):
            raise UsageError(f"{result}: is an input and would be overwritten; choose another name", code="E_SAME_FILE")


def _identities(path: Path) -> Iterator[Path | tuple[int, int]]:
    """Yield keys that identify a file: its real path and, if it exists, device and inode."""
    try:
        yield Path(os.path.realpath(path))
        status = path.stat()
    except OSError:
        # Opening the file will report the error.
        return
    yield status.st_dev, status.st_ino


def check_file(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Check that a file may be created at a path: its folder exists, and nothing is in the way.

    Raises:
        OutputError: The path is a folder, its folder does not exist, or the name is invalid on this system.
        OutputExistsError: The file exists and `overwrite` is off.
    """
    target = Path(path)
    if "\0" in os.fspath(target):
        raise OutputError(
            f"{os.fspath(target)!r}: has a NUL character, which no file name can have; choose another name"
        )
    if os.path.isdir(target):
        raise OutputError(f"{target}: is a folder; choose a file name")
    if not os.path.isdir(target.parent):
        raise OutputError(f"{target}: the folder {target.parent} does not exist; create it")
    try:
        target.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise write_error(target, error) from error
    if not overwrite:
        raise OutputExistsError(f"{target}: already exists; choose another name or replace it with `overwrite`")


def check_folder(folder: Path) -> None:
    """Check that files can be created in a folder, or in the nearest one that exists if it has yet to be created.

    Raises:
        OutputError: No files can be created there, or a file is in the way.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise OutputError(f"{nearest}: is not a folder; choose another folder")
    probe_folder(nearest)


def probe_folder(folder: Path) -> None:
    """Check that files can be created in a folder, by creating one and removing it.

    Permissions alone are not sufficient: the disk may be full or mounted read-only.

    Raises:
        OutputError: No files can be created. The code is `E_NOSPACE` if there is no space left.
    """
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        try:
            with probe.open("xb") as file:
                # Write a byte, because an empty file can be created even on a full disk.
                file.write(b"x")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def make_folder(folder: Path) -> None:
    """Create a folder for results if it does not exist. Raises OutputError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error


def write_error(path: Path, error: OSError) -> OutputError:
    """Translate an OSError from a write into an OutputError."""
    reason = error.strerror or str(error)
    if error.errno == errno.ENAMETOOLONG:
        return OutputError(f"{path}: cannot be written ({reason}); choose a shorter name")
    if error.errno in _NO_SPACE:
        return OutputError(
            f"{path}: cannot be written ({reason}); free some space or choose another folder", code="E_NOSPACE"
        )
    return OutputError(f"{path}: cannot be written ({reason}); choose another folder")
