"""How paths are shown: a folder often is the name of a patient, and a message often travels further than its reader."""

import os
import re
from collections.abc import Iterable
from pathlib import Path


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path without the folders that it need not tell.

    Args:
        path: A path, relative or absolute.

    Returns:
        What lies in the working folder, from there; of any other path the last part.
    """
    try:
        inside = os.path.relpath(path)
    except ValueError:
        # On Windows: another drive.
        return os.path.basename(os.path.abspath(path))
    leads_out = inside == os.pardir or inside.startswith(os.pardir + os.sep)
    return os.path.basename(os.path.abspath(path)) if leads_out else inside


def hide_folders(message: str, paths: Iterable[str | os.PathLike[str]]) -> str:
    """Shorten paths inside a message, as `shown_path` shortens each.

    Args:
        message: A message that may name some of the paths, or files in them.
        paths: The paths that may be named in it.

    Returns:
        The message, in which also the home folder is `~`.
    """
    # The longest first: where one path lies in another, it is shortened as itself.
    for text in sorted({os.fspath(path) for path in paths}, key=len, reverse=True):
        shown = shown_path(text)
        for written in {text, os.path.normpath(text)}:
            # Not a root, of which nothing would be left, and not in the middle of a longer name.
            if os.path.basename(written) and written != shown:
                message = re.sub(rf"(?<![\w/.-]){re.escape(written)}(?![\w-])", shown.replace("\\", r"\\"), message)
    home = str(Path.home())
    return message.replace(home + os.sep, f"~{os.sep}") if os.path.basename(home) else message
