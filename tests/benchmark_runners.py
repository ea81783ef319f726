"""Runners for tests of the benchmark: they are sent to other processes, so they are classes of a module."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade_rt.errors import BackendUnavailableError, EngineError

STEPS = {"load": 1.0, "stage1": 2.0}


class CopyRunner:
    """Takes a stored mask for the result of every scan."""

    def __init__(self, mask: Path) -> None:
        self._mask = mask

    @property
    def description(self) -> Mapping[str, Any]:
        return {"backend": "copy", "precision": "fp32", "process": os.getpid()}

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        shutil.copy(self._mask, mask)
        return STEPS


class TurnRunner(CopyRunner):
    """Also writes its name to a common file, each time it is its turn."""

    def __init__(self, mask: Path, name: str, turns: Path) -> None:
        super().__init__(mask)
        self._name, self._turns = name, turns

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        with self._turns.open("a") as file:
            file.write(f"{self._name}\n")
        return super().run(scan, mask)


class FailsOnScans(CopyRunner):
    """Opens, and refuses every scan."""

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        raise EngineError("the engine is tired")


class EndsItsProcess(CopyRunner):
    """Opens, and takes its process with it."""

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        os._exit(3)


def cannot_open() -> CopyRunner:
    raise BackendUnavailableError("backend 'copy' is not here", code="E_GONE")
