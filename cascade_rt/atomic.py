"""Writing a file so that it is there completely or not at all."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cascade_rt.errors import OutputError, OutputExistsError


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], None], *, overwrite: bool) -> None:
    """Create or replace a file in one step: whoever looks sees the old file or the whole new one.

    `write` fills a temporary file in the same folder, which is flushed to the disk and then renamed. If anything fails,
    also by Ctrl-C, the temporary file is removed and a file that was there before is unchanged.

    Args:
        path: Where the file goes. A symbolic link is replaced, not followed.
        write: Writes the content to the binary file it is given; errors other than `OSError` pass through.
        overwrite: Whether a file that is already there may be replaced. It is looked for once, at the start.

    Raises:
        OutputExistsError: The file is already there and `overwrite` is false.
        OutputError: The path is a folder, its folder does not exist, or the system refuses to write.
    """
    target = Path(path)
    check_target(target, overwrite=overwrite)
    # Not tempfile: its files can be read by their owner only, and the result would keep that.
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{target}: cannot be written ({reason}); choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: str | os.PathLike[str], content: bytes, *, overwrite: bool) -> None:
    """Create or replace a file with this content in one step; raises like `atomic_write`."""
    atomic_write(path, lambda file: _write_all(file, content), overwrite=overwrite)


def _write_all(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise before the work begins what `atomic_write` would raise for this path after it."""
    target = Path(path)
    if os.path.isdir(target):
        raise OutputError(f"{target}: is a folder; name a file")
    if not os.path.isdir(target.parent):
        raise OutputError(f"{target}: the folder {target.parent} does not exist; create it")
    if not overwrite and os.path.lexists(target):
        raise OutputExistsError(f"{target}: is already there; choose another name or ask for it to be overwritten")
