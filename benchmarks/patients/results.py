"""The results: JSON lines, each written as soon as it is known."""

import datetime
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.machine import commit
from cascade_rt.bundles.bundle import Bundle
from cascade_rt.measuring.benchmarking.machine import describe_machine
from cascade_rt.run.cascade import Cascade

Line = dict[str, Any]


class Results:
    """The lines of a measurement, in memory and in a file.

    Example:
        results = Results(Path("patients.jsonl"), append=False)
        results.add({"kind": "case"})
    """

    def __init__(self, path: Path | None, *, append: bool) -> None:
        self.lines: list[Line] = []
        self._path = path
        if path is not None and not append:
            path.write_text("", encoding="utf-8")

    def add(self, line: Line) -> None:
        """Keep a line."""
        self.lines.append(line)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")

    def of_kind(self, kind: str) -> list[Line]:
        """The lines of a kind."""
        return [line for line in self.lines if line["kind"] == kind]


def machine_line(bundle: Bundle, cascades: Iterable[Cascade]) -> Line:
    """What the figures were measured with; names of hosts, people and folders are not in it."""
    manifest = bundle.manifest
    engines = [dict(cascade.provenance["engine"]) for cascade in cascades]
    machine = describe_machine()
    return {
        "kind": "machine",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **machine,
        "versions": {**machine["versions"], **_surface_version()},
        "engine": engines[0],
        "engines": engines,
        "bundle": {
            "name": manifest.name,
            "sha256": bundle.sha256,
            "target": manifest.config.target,
            "base_width": manifest.config.base_width,
            "window_hu": list(manifest.config.window_hu),
            # The masks are measured without it.
            "islands": getattr(manifest.config, "islands", None),
        },
        "commit": commit(),
    }


def _surface_version() -> Line:
    """The version of what measures surfaces, where it is installed."""
    try:
        return {"MONAI": importlib.metadata.version("monai")}
    except importlib.metadata.PackageNotFoundError:
        return {}
