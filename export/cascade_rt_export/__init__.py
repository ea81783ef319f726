"""Export a trained checkpoint to a bundle that is verified to compute the same.

    from cascade_rt_export import export, load_checkpoint, verify

    bundle = export(load_checkpoint("runs/first"), "bundles/first")

These names are imported lazily, because they need PyTorch, which the rest of this package may not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade_rt.training.initial import load_initial as load_checkpoint
    from cascade_rt_export.bundle_export import export_bundle as export
    from cascade_rt_export.calibration import scan_calibration
    from cascade_rt_export.gate import read_limits
    from cascade_rt_export.verification import verify

_HOMES = {
    "export": ("cascade_rt_export.bundle_export", "export_bundle"),
    "load_checkpoint": ("cascade_rt.training.initial", "load_initial"),
    "read_limits": ("cascade_rt_export.gate", "read_limits"),
    "scan_calibration": ("cascade_rt_export.calibration", "scan_calibration"),
    "verify": ("cascade_rt_export.verification", "verify"),
}

__all__ = ["export", "load_checkpoint", "read_limits", "scan_calibration", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function = _HOMES[name]
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    return sorted(__all__)
