"""Where measurements go: a file of JSON lines that grows by whole lines."""

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, processor_name
from cascade_rt.common.outputs import check_file
from cascade_rt.engines.doctor import package_versions
from cascade_rt.engines.nvidia import Gpu
from cascade_rt.errors import OutputError


class Lines:
    """Appends measurements to a file; what was written stays, however the run ends."""

    def __init__(self, path: Path, machine: Mapping[str, Any]) -> None:
        """Choose the file, which is made with the first line.

        Args:
            path: The file.
            machine: What every line says of the machine.

        Raises:
            OutputError: The folder does not exist, or the path is a folder.
        """
        check_file(path, overwrite=True)
        self._path = path
        self._machine = dict(machine)

    def write(self, kind: str, measured: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            kind: What was measured, such as `gate`, `peak`, `graph` or `timing`.
            measured: The measurement; its `reason` says why there is none, or is None.

        Raises:
            OutputError: The line cannot be written.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({"kind": kind, "date": now, **self._machine, **measured}) + "\n"
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                # One call for the whole line, so that a killed run leaves no half of one.
                os.write(file, line.encode())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror}); choose another file") from error


def describe_machine(gpu: Gpu | None, commit_name: str | None = None) -> dict[str, Any]:
    """What every line says of the machine.

    Args:
        gpu: Its GPU, if it has one.
        commit_name: The commit of the code, where the checkout itself cannot tell.
    """
    return {
        **_describe_gpu(gpu),
        "processor": processor_name(),
        "versions": package_versions(),
        "commit": commit_name or commit(),
    }


def _describe_gpu(gpu: Gpu | None) -> dict[str, Any]:
    if gpu is None:
        return {"gpu": None}
    return {
        "gpu": gpu.name,
        "compute_capability": ".".join(map(str, gpu.compute_capability)),
        "gpu_memory_bytes": gpu.memory_bytes,
        "driver": gpu.driver,
        "driver_cuda": gpu.cuda,
    }


def reason_of(error: Exception) -> str:
    """Why something was not measured, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
