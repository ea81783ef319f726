"""Reading files that came from somebody else: plain files only, opened once, never more than was expected."""

import os
import stat
from io import BufferedReader
from pathlib import Path

# A pipe is not waited for; Windows has no such flag, and needs to be told not to translate.
_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC", "O_NOCTTY"):
    _OPEN_FLAGS |= getattr(os, _flag, 0)

COPY_THE_FOLDER = "copy the folder with: cp -rL, which follows links, and use the copy"
"""What to do where a folder of files has something else in their place: caches of model hubs and volumes of containers
are made of links."""


class NotAPlainFileError(ValueError):
    """There is something else than a plain file, or more of it than may be read; the message says what it is."""


def open_plain_file(path: str | os.PathLike[str], *, follow_links: bool = False) -> BufferedReader:
    """Open a file for reading, without waiting for a pipe.

    It is looked at before, for to open a device can do something, and the opened file is looked at again, so that it
    cannot be exchanged between the look and the reading.

    Args:
        path: The file.
        follow_links: Whether the last part of the path may be a symbolic link.

    Raises:
        NotAPlainFileError: It is a folder, a device, a pipe, a socket or a symbolic link; or no file has such a name.
        OSError: It is not there, or cannot be read.
    """
    try:
        # Where the system cannot refuse to follow a link while it opens one (Windows), this is all there is.
        before = os.stat(path, follow_symlinks=follow_links)
    except ValueError as error:
        raise NotAPlainFileError("has a character in its name that no file has") from error
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
        raise NotAPlainFileError("is not a plain file but a folder")
    if not stat.S_ISREG(mode):
        raise NotAPlainFileError("is not a plain file but a pipe or a device")


def read_plain_file(path: Path, most: int, *, follow_links: bool = False) -> bytes:
    """Read a whole file of at most `most` bytes; never more is read, even where the file grows meanwhile.

    Raises:
        NotAPlainFileError: As `open_plain_file`, or it is larger.
        OSError: It is not there, or cannot be read.
    """
    with open_plain_file(path, follow_links=follow_links) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise NotAPlainFileError(f"is larger than {most} bytes")
        content = file.read(most + 1)
    if len(content) > most:
        raise NotAPlainFileError(f"is larger than {most} bytes")
    return content
