"""Recursive folder traversal that never skips a folder silently."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cascade_rt.common.hashing import stamp
from cascade_rt.errors import InputError


@dataclass(slots=True)
class FolderContent:
    """The entries of one folder."""

    path: Path
    folders: list[str]
    """Names of the subfolders, sorted. Removing a name from the list prevents the walk from entering that folder."""
    files: list[str]
    """Names of everything else, sorted, including broken links."""


def walk_folder(root: Path, on_error: Callable[[OSError], None]) -> Iterator[FolderContent]:
    """Yield a folder and all folders below it, each once, however many links lead to it.

    Links to folders are followed after all real folders, so that a folder reachable both ways is reported under its
    real path. Link cycles are not followed.

    Args:
        root: The folder to start from.
        on_error: Called with the OSError for a folder that cannot be read; its `filename` is the folder's path. The
            walk continues unless the callback raises.

    Yields:
        The content of each folder.
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


def stamp_folder(root: Path) -> list[int] | None:
    """Return what changes whenever a file of a folder or its subfolders is written, replaced, added or removed.

    Hidden files do not count.

    Returns:
        The sum of their sizes in bytes, the last modification time and the last change of an inode in ns, and a hash of
        the stamps of all. None if a folder cannot be read.
    """
    unreadable: list[OSError] = []
    stamps, digest = [], hashlib.sha256()
    for content in walk_folder(root, unreadable.append):
        for name in (each for each in content.files if not each.startswith(".")):
            found = stamp(content.path / name)
            if found is not None:
                stamps.append(found)
            digest.update(f"{content.path.relative_to(root) / name}\0{found}\n".encode(errors="surrogateescape"))
    if unreadable or not stamps:
        return None
    return [
        sum(each[0] for each in stamps),
        max(each[1] for each in stamps),
        max(each[2] for each in stamps),
        int.from_bytes(digest.digest()[:6], "big"),
    ]


def unreadable_folder(error: OSError) -> InputError:
    """Convert an OSError from `walk_folder` to an InputError."""
    return InputError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); check its permissions or remove it",
        code="E_READ",
    )


def raise_unreadable(error: OSError) -> NoReturn:
    """Raise InputError; an `on_error` callback that aborts `walk_folder` at the first unreadable folder."""
    raise unreadable_folder(error) from error


def _look_into(folder: Path) -> tuple[FolderContent, set[str]]:
    """Return the content of a folder and the names of its subfolders that are links."""
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
        # A link to itself or into an inaccessible folder: opening it will report the error.
        return False
