"""Reading untrusted files: plain files only, opened once, and never more bytes than expected."""

import os
import stat
from io import BufferedReader
from pathlib import Path

# O_NONBLOCK avoids waiting for a pipe; Windows lacks it, and needs O_BINARY to disable newline translation.
_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC", "O_NOCTTY"):
    _OPEN_FLAGS |= getattr(os, _flag, 0)

COPY_THE_FOLDER = "copy the folder with: cp -rL (which follows links), and use the copy"
"""Advice for messages if a folder contains links instead of plain files, as model hub caches and container volumes
do."""


class NotAPlainFileError(ValueError):
    """The path is not a plain file, or the file is larger than allowed. The message says which."""


def open_plain_file(path: str | os.PathLike[str], *, follow_links: bool = False) -> BufferedReader:
    """Open a file for reading, without waiting for a pipe.

    The file type is checked before opening, because opening a device can have side effects, and again on the open file,
    so that the file cannot be swapped between the check and the read.

    Args:
        path: The file.
        follow_links: Whether the last component of the path may be a symbolic link.

    Raises:
        NotAPlainFileError: The path is a folder, device, pipe, socket or symbolic link, or an invalid name.
        OSError: The file does not exist or cannot be read.
    """
    try:
        # On systems without O_NOFOLLOW (Windows), this is the only check for links.
        before = os.stat(path, follow_symlinks=follow_links)
    except ValueError as error:
        raise NotAPlainFileError("has an invalid character in its name") from error
    _check_plain(before.st_mode)
    descriptor = os.open(path, _OPEN_FLAGS if follow_links else _OPEN_FLAGS | getattr(os, "O_NOFOLLOW", 0))
    try:
        _check_plain(os.fstat(descriptor).st_mode)
    except NotAPlainFileError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _check_plain(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise NotAPlainFileError("is a symbolic link")
    if stat.S_ISDIR(mode):
        raise NotAPlainFileError("is a folder, not a regular file")
    if not stat.S_ISREG(mode):
        raise NotAPlainFileError("is a pipe or a device, not a regular file")


def read_plain_file(path: Path, most: int, *, follow_links: bool = False) -> bytes:
    """Read a whole file of at most `most` bytes, with the limit enforced even if the file grows meanwhile.

    Raises:
        NotAPlainFileError: As for `open_plain_file`, or the file is larger than `most`.
        OSError: The file does not exist or cannot be read.
    """
    with open_plain_file(path, follow_links=follow_links) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise NotAPlainFileError(f"is larger than {most} bytes")
        content = file.read(most + 1)
    if len(content) > most:
        raise NotAPlainFileError(f"is larger than {most} bytes")
    return content
