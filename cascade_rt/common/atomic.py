"""Atomic file writes: a file is written completely or not at all."""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cascade_rt.common.outputs import check_file, write_error

_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
"""Errors from file systems that do not support fsync on folders, such as some network file systems."""


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], None], *, overwrite: bool) -> None:
    """Create or replace a file atomically: readers see either the old file or the complete new one.

    `write` fills a temporary file in the same folder, which is synced to disk and then renamed. The folder is then
    synced too, so that the file survives a power failure. On any failure, including Ctrl-C, the temporary file is
    removed and an existing file is left unchanged. One exception: if syncing the folder fails, an existing file has
    already been replaced, and a newly created file is removed again.

    Args:
        path: The file to write. A symbolic link is replaced, not followed.
        write: Writes the content to the binary file it is given. Errors other than `OSError` pass through.
        overwrite: Whether an existing file may be replaced. Checked once, at the start.

    Raises:
        OutputExistsError: The file already exists and `overwrite` is false.
        OutputError: The path is a folder, its folder does not exist, or writing fails. The code is `E_NOSPACE` if there
            is no space left.
    """
    target = Path(path)
    check_file(target, overwrite=overwrite)
    is_new = not os.path.lexists(target)
    # Not tempfile: it creates files with mode 0600, and the result would keep that mode.
    temporary = target.with_name(f"{_temporary_prefix(target)}{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        try:
            sync_folder(target.parent)
        except OSError:
            if is_new:
                target.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: str | os.PathLike[str], content: bytes, *, overwrite: bool) -> None:
    """Create or replace a file with the given content atomically. Raises like `atomic_write`."""
    atomic_write(path, lambda file: _write_all(file, content), overwrite=overwrite)


def _write_all(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files left behind by a killed writer. Raises OutputError.

    Call this only if no other process is writing the file.
    """
    try:
        for leftover in path.parent.glob(f"{_temporary_prefix(path)}*.tmp"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk; a no-op on systems that do not support it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _temporary_prefix(path: Path) -> str:
    """Return the prefix of a path's temporary files: a short hash, as the name itself may be of maximum length."""
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"
