"""Walking through a folder of scans so that none is left out without a word."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cascade_rt.errors import InputError


@dataclass(slots=True)
class FolderContent:
    """What lies in one folder."""

    path: Path
    folders: list[str]
    """Names of the folders in it, sorted; those that are taken out of the list are not entered."""
    files: list[str]
    """Names of everything else, sorted: files, and links that lead nowhere."""


def walk_folder(root: Path, on_error: Callable[[OSError], None]) -> Iterator[FolderContent]:
    """Yield a folder and all folders below it, each once, however many links lead to it.

    Links to folders are followed, behind the folders that lie there themselves: a folder that can be reached in both
    ways has its own path, and a link that leads back into its own folder is not followed round and round.

    Args:
        root: Where to begin.
        on_error: Called with what the system says of a folder that cannot be read, whose `filename` is its path; the
            others follow nevertheless, unless it raises.
    """
    seen: set[tuple[int, int]] = set()
    waiting, links = deque([root]), deque[Path]()
    while waiting or links:
        folder = waiting.popleft() if waiting else links.popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            content, linked = _look_into(folder)
        except OSError as error:
            error.filename = os.fspath(folder)
            on_error(error)
            continue
        yield content
        links.extend(folder / name for name in content.folders if name in linked)
        waiting.extendleft(folder / name for name in reversed(content.folders) if name not in linked)


def unreadable_folder(error: OSError) -> InputError:
    """The error of ours for a folder that `walk_folder` could not read."""
    return InputError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); check its permissions, or remove it",
        code="E_READ",
    )


def raise_unreadable(error: OSError) -> NoReturn:
    """For `walk_folder`: refuse all of it where one folder cannot be read."""
    raise unreadable_folder(error) from error


def _look_into(folder: Path) -> tuple[FolderContent, set[str]]:
    """The content of a folder, and which of the folders in it are links."""
    content, linked = FolderContent(folder, [], []), set()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not _is_folder(entry):
                content.files.append(entry.name)
                continue
            content.folders.append(entry.name)
            if entry.is_symlink():
                linked.add(entry.name)
    return content, linked


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link into itself, or into a folder that cannot be entered: whoever opens it is told.
        return False
