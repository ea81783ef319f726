"""Modules under the names that they had before they moved, for programs that still import those."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

_ROOMS = {
    "bundles": "bundle golden graph_arithmetic graph_checks manifest_shape protobuf_wire signature",
    "common": "arguments atomic folders hashing labels metrics packages plain_file processors shown_paths strict_json "
    "tensors timing version worker_logs",
    "config": "tumor_recipe",
    "data": "case_pairs",
    "engines": "doctor",
    "measuring": "benchmarking evaluation evaluation_report",
    "models": "crop",
    "results": "islands lesions measurements preview provenance segmentation slice_panel",
    "run": "cascade cohort inference scan_run",
    "scans": "dicom grids nifti pixel_grid search volume",
    "training": "losses",
}
_MOVED = {name: f"{room}.{name}" for room, names in _ROOMS.items() for name in names.split()} | {
    "agreement": "measuring.paired_difference",
    "bundle_files": "bundles.files",
    "ladder": "engines.fallbacks",
    "measuring.agreement": "measuring.paired_difference",
    "measuring.benchmarking.masks": "measuring.benchmarking.measure",
    "runs": "common.pixel_runs",
    "scan_checks": "scans.checks",
    "scan_source": "scans.source",
}


class MovedModules:
    """Finds a module under its former name and warns of it. It is the same module, not a copy."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import a module that has moved, or None if it has not."""
        del path, target
        return None if _present_name(name) is None else ModuleSpec(name, cls)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Let Python make an empty module, which the real one replaces."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Import the module under its present name, in place of the empty one."""
        present = _present_name(module.__name__)
        if present is None:
            raise ModuleNotFoundError(f"No module named {module.__name__!r}", name=module.__name__)
        warnings.warn(f"{module.__name__} is now {present}", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(present)


def _present_name(name: str) -> str | None:
    package, _, rest = name.partition(".")
    former = rest if rest in _MOVED else rest.partition(".")[0]
    if package != "cascade_rt" or former not in _MOVED:
        return None
    return f"{package}.{_MOVED[former]}{rest.removeprefix(former)}"
