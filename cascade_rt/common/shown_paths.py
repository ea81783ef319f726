"""Display of paths and names: folder names are often patient names, and names may contain terminal escape sequences.

Nothing here raises on any machine: formatting must not cause a message to be lost.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_ABSOLUTE = re.compile(r"(?<![\w/.:~-])/(?:[^\s/:;,()'\"]+/)+[^\s/:;,()'\"]+")
"""Matches absolute paths in a message, up to the first space."""


def shown_path(path: str | os.PathLike[str]) -> str:
    """Shorten a path so that it does not reveal its parent folders.

    Args:
        path: A path, relative or absolute.

    Returns:
        The relative path if it lies in the working directory, else only the last component.
    """
    try:
        inside = os.path.relpath(path)
        whole = os.path.abspath(path)
    except (OSError, ValueError):
        # The working directory no longer exists or, on Windows, the path is on another drive.
        inside, whole = os.pardir, os.path.normpath(path)
    leads_out = inside == os.pardir or inside.startswith(os.pardir + os.sep)
    return os.path.basename(whole) if leads_out else inside


def hide_folders(message: str, paths: Iterable[str | os.PathLike[str]]) -> str:
    """Shorten the paths in a message with `shown_path`.

    Args:
        message: A message that may contain some of the paths, or files in them.
        paths: The paths that may occur in the message. Other paths are found if they are absolute and have no spaces.

    Returns:
        The message with shortened paths. Paths in hidden folders of the home directory are shown as `~/.name`.
    """
    # Longest first, so that a path nested in another one is replaced as a whole.
    for text in sorted({os.fspath(path) for path in paths}, key=len, reverse=True):
        shown = shown_path(text)
        for written in {text, os.path.normpath(text)}:
            # Skip root paths, of which nothing would be left; do not match inside a longer name.
            if os.path.basename(written) and written != shown:
                message = re.sub(rf"(?<![\w/.-]){re.escape(written)}(?![\w-])", shown.replace("\\", r"\\"), message)
    home = _home()
    return _ABSOLUTE.sub(lambda found: _shown_from_home(found[0], home), message)


def plain_text(text: str, *, lines: bool = False) -> str:
    """Replace control, formatting and non-printable characters by question marks.

    These could control a terminal, mislead its reader, or be impossible to show.

    Args:
        text: Any text, such as a file name from an archive or a value from a header.
        lines: Whether to keep line feeds.
    """
    return "".join(letter if _is_plain(letter) or (lines and letter == "\n") else "?" for letter in text)


def _is_plain(letter: str) -> bool:
    # Control and format characters, surrogates and line separators are not plain; all kinds of spaces are harmless.
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _home() -> str | None:
    try:
        return str(Path.home())
    except RuntimeError:
        # HOME is not set, and the user has no passwd entry.
        return None


def _shown_from_home(path: str, home: str | None) -> str:
    if home is not None and os.path.basename(home) and path.startswith(f"{home}{os.sep}."):
        return "~" + path[len(home) :]
    return shown_path(path)
