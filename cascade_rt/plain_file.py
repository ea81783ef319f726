"""Reading files that came from somebody else: plain files only, opened once, never more than was expected."""

import os
import stat
from io import BufferedReader
from pathlib import Path

# A link is not followed, and a pipe is not waited for; Windows has neither flag, and needs to be told not to translate.
_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
    _OPEN_FLAGS |= getattr(os, _flag, 0)

COPY_THE_FOLDER = "copy the folder with: cp -rL, which follows links, and use the copy"
"""What to do where a folder of files has something else in their place: caches of model hubs and volumes of containers
are made of links."""


class NotAPlainFileError(ValueError):
    """There is something else than a plain file, or more of it than may be read; the message says what it is."""


def open_plain_file(path: Path) -> BufferedReader:
    """Open a file for reading, without following a symbolic link in its last part and without waiting for a pipe.

    What is looked at is the opened file, so that it cannot be exchanged between the look and the reading.

    Raises:
        NotAPlainFileError: It is a symbolic link, a folder, a device, a pipe or a socket.
        OSError: It is not there, or cannot be read.
    """
    # Where the system cannot refuse to follow a link while it opens one (Windows), this is all there is.
    if path.is_symlink():
        raise NotAPlainFileError("is a symbolic link")
    descriptor = os.open(path, _OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAPlainFileError("is not a plain file")
    return os.fdopen(descriptor, "rb")


def read_plain_file(path: Path, most: int) -> bytes:
    """Read a whole file of at most `most` bytes; never more is read, even where the file grows meanwhile.

    Raises:
        NotAPlainFileError: As `open_plain_file`, or it is larger.
        OSError: It is not there, or cannot be read.
    """
    with open_plain_file(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise NotAPlainFileError(f"is larger than {most} bytes")
        content = file.read(most + 1)
    if len(content) > most:
        raise NotAPlainFileError(f"is larger than {most} bytes")
    return content
