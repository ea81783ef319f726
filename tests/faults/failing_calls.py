"""Calls of the system that fail at a chosen count: reading, writing, flushing, renaming."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cascade_rt.common.hashing import HashedFile


@dataclass
class Fault:
    """Fails the `at`-th call, counted from 1, and no other."""

    at: int
    calls: int = 0

    @property
    def fired(self) -> bool:
        return self.calls >= self.at

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class FailingFile:
    """A file one of whose calls may fail."""

    def __init__(self, file: Any, fault: Fault, names: tuple[str, ...]) -> None:
        self._file, self._fault, self._names = file, fault, names

    def __enter__(self) -> "FailingFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._file, name)
        return _counted(method, self._fault) if name in self._names else method


def _counted(function: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        fault()
        return function(*arguments, **options)

    return call


@contextmanager
def failing(kind: str, at: int) -> Iterator[Fault]:
    """Let the `at`-th call of a kind fail inside."""
    fault = Fault(at)
    with pytest.MonkeyPatch.context() as patch:
        if kind == "read":
            patch.setattr(HashedFile, "readinto", _counted(HashedFile.readinto, fault))
        elif kind == "write":
            path_open = Path.open

            def open_path(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
                file = path_open(path, mode, *arguments, **options)
                return FailingFile(file, fault, ("write", "writelines", "flush")) if "x" in mode else file

            patch.setattr(Path, "open", open_path)
        else:
            patch.setattr(os, kind, _counted(getattr(os, kind), fault))
        yield fault
