"""Writing a file so that it is there completely or not at all."""

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
"""What file systems say that have no fsync of folders, some network ones among them."""


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], None], *, overwrite: bool) -> None:
    """Create or replace a file in one step: whoever looks sees the old file or the whole new one.

    `write` fills a temporary file in the same folder, which is flushed to the disk and then renamed; then the folder is
    flushed too, so that the file is there also after a power failure. If anything fails, also by Ctrl-C, the temporary
    file is removed and a file that was there before is unchanged. One exception: where the folder's flush fails, an old
    file has been replaced by then, and a new one is taken away again.

    Args:
        path: Where the file goes. A symbolic link is replaced, not followed.
        write: Writes the content to the binary file it is given; errors other than `OSError` pass through.
        overwrite: Whether a file that is already there may be replaced. It is looked for once, at the start.

    Raises:
        OutputExistsError: The file is already there and `overwrite` is false.
        OutputError: The path is a folder, its folder does not exist, or the system refuses to write; the code is
            `E_NOSPACE` where it has no room.
    """
    target = Path(path)
    check_file(target, overwrite=overwrite)
    is_new = not os.path.lexists(target)
    # Not tempfile: its files can be read by their owner only, and the result would keep that.
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
    """Create or replace a file with this content in one step; raises like `atomic_write`."""
    atomic_write(path, lambda file: _write_all(file, content), overwrite=overwrite)


def _write_all(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files left behind by a killed writer; raises OutputError.

    Only for a file that no other process is writing now.
    """
    try:
        for leftover in path.parent.glob(f"{_temporary_prefix(path)}*.tmp"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def sync_folder(folder: Path) -> None:
    """Flush to the disk which files a folder holds; nothing on systems where that cannot be asked for."""
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
    """How temporary files of a path begin: short, for the name itself may be as long as the system allows."""
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"
