"""Two-stage pancreatic-tumor segmentation in CT.

    from cascade_rt import open_cascade, read_volume

    with open_cascade() as cascade:
        segmentation = cascade.run(read_volume("scan.nii.gz"))
    segmentation.save("scan_seg.nii.gz")

The public names are imported lazily on first use, so that importing the package itself is cheap.

Files read and written and steps taken are logged to the logger `cascade_rt` at level INFO, with full paths. Nothing is
shown unless the importing program configures logging.
"""

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cascade_rt.common.moved_modules import MovedModules
from cascade_rt.common.version import __version__

if TYPE_CHECKING:
    from cascade_rt.bundles.bundle import Bundle, Manifest, read_bundle
    from cascade_rt.config import CascadeConfig, CropConfig, TrainConfig, load_config
    from cascade_rt.errors import CascadeError
    from cascade_rt.results.segmentation import Segmentation
    from cascade_rt.run.cascade import Cascade, open_cascade
    from cascade_rt.scans.opening import read_volume
    from cascade_rt.scans.volume import Volume, read_mask, write_mask

_HOMES = {
    "Bundle": "bundles.bundle",
    "Cascade": "run.cascade",
    "CascadeConfig": "config",
    "CascadeError": "errors",
    "CropConfig": "config",
    "Manifest": "bundles.bundle",
    "Segmentation": "results.segmentation",
    "TrainConfig": "config",
    "Volume": "scans.volume",
    "load_config": "config",
    "open_cascade": "run.cascade",
    "read_bundle": "bundles.bundle",
    "read_mask": "scans.volume",
    "read_volume": "scans.opening",
    "write_mask": "scans.volume",
}

__all__ = [
    "Bundle",
    "Cascade",
    "CascadeConfig",
    "CascadeError",
    "CropConfig",
    "Manifest",
    "Segmentation",
    "TrainConfig",
    "Volume",
    "__version__",
    "load_config",
    "open_cascade",
    "read_bundle",
    "read_mask",
    "read_volume",
    "write_mask",
]


logging.getLogger(__name__).addHandler(logging.NullHandler())
sys.meta_path.insert(0, MovedModules)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
