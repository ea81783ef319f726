"""How paths and names are shown: a folder often is the name of a patient, and a name can command a terminal.

Nothing here raises, whatever the machine is like: a message must not be lost with what decorates it.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_ABSOLUTE = re.compile(r"(?<![\w/.:~-])/(?:[^\s/:;,()'\"]+/)+[^\s/:;,()'\"]+")
"""What looks like an absolute path in a message, as far as the first space in it."""


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path without the folders that it need not tell.

    Args:
        path: A path, relative or absolute.

    Returns:
        What lies in the working folder, from there; of any other path the last part.
    """
    try:
        inside = os.path.relpath(path)
        whole = os.path.abspath(path)
    except (OSError, ValueError):
        # The working folder is gone; or, on Windows, the path is on another drive.
        inside, whole = os.pardir, os.path.normpath(path)
    leads_out = inside == os.pardir or inside.startswith(os.pardir + os.sep)
    return os.path.basename(whole) if leads_out else inside


def hide_folders(message: str, paths: Iterable[str | os.PathLike[str]]) -> str:
    """Shorten paths inside a message, as `shown_path` shortens each.

    Args:
        message: A message that may name some of the paths, or files in them.
        paths: The paths that may be named in it. Others are found where they are absolute and have no space in them.

    Returns:
        The message, in which a hidden folder of the home folder is `~/.name`.
    """
    # The longest first: where one path lies in another, it is shortened as itself.
    for text in sorted({os.fspath(path) for path in paths}, key=len, reverse=True):
        shown = shown_path(text)
        for written in {text, os.path.normpath(text)}:
            # Not a root, of which nothing would be left, and not in the middle of a longer name.
            if os.path.basename(written) and written != shown:
                message = re.sub(rf"(?<![\w/.-]){re.escape(written)}(?![\w-])", shown.replace("\\", r"\\"), message)
    home = _home()
    return _ABSOLUTE.sub(lambda found: _shown_from_home(found[0], home), message)


def plain_text(text: str, *, lines: bool = False) -> str:
    """Replace what could command a terminal or mislead its reader, and what no terminal can show, by question marks.

    Args:
        text: Any text, such as a file name from an archive or a value from a header.
        lines: Whether line feeds stay.
    """
    return "".join(letter if _is_plain(letter) or (lines and letter == "\n") else "?" for letter in text)


def _is_plain(letter: str) -> bool:
    # Control and format characters, halves of surrogate pairs, separators of lines; spaces of all kinds are harmless.
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _home() -> str | None:
    try:
        return str(Path.home())
    except RuntimeError:
        # No HOME, and a user whom the system does not know.
        return None


def _shown_from_home(path: str, home: str | None) -> str:
    if home is not None and os.path.basename(home) and path.startswith(f"{home}{os.sep}."):
        return "~" + path[len(home) :]
    return shown_path(path)
