"""Provenance of a result: enough to reproduce it, without the machine's users, folders or clock."""

import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.bundles.files import WEIGHTS_NAME, graph_name
from cascade_rt.common.shown_paths import hide_folders
from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt.common.version import __version__
from cascade_rt.engines import Engines
from cascade_rt.engines.base import EngineInfo

_LIBRARIES = ("isal", "nibabel", "numpy", "scipy")


def provenance(bundle: Bundle, engines: Engines) -> dict[str, Any]:
    """Return bundle, graphs, engine, versions and batch sizes as plain values.

    `rung` is the fallback level: the number of times memory ran out. 0 means that all was computed as planned.
    """
    manifest, info = bundle.manifest, engines.stage1.info
    return {
        "versions": library_versions(),
        "bundle": {"name": manifest.name, "sha256": bundle.sha256, "intended_use": manifest.intended_use},
        "graphs": {stage: manifest.files[_model_file(stage, info)].sha256 for stage in STAGES},
        "engine": asdict(info),
        "engines_passed_over": [hide_folders(reason, ()) for reason in engines.passed_over],
        "batch_plan": {"slices": engines.stage1.preferred_batch, "crops": engines.stage2.preferred_batch},
        "rung": engines.level,
    }


@functools.cache
def library_versions() -> Mapping[str, str]:
    """Return the versions of cascade-rt, Python and the libraries used for every scan, but not that of the engine."""
    found = {"cascade-rt": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _model_file(stage: Stage, info: EngineInfo) -> str:
    """Return the bundle file that a stage was read from. Engines that do their own rounding read the float32 graph."""
    if info.backend == "pytorch":
        return WEIGHTS_NAME
    return graph_name(stage, "fp16" if info.precision == "fp16" else "fp32")
