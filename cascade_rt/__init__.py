"""Two-stage pancreatic-tumor segmentation in CT.

    from cascade_rt import segment

    segmentation = segment("scan.nii.gz")
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
    from cascade_rt.data.case_pairs import check_pairs, pair_cases
    from cascade_rt.data.slices import open_cases
    from cascade_rt.engines import EngineRequest
    from cascade_rt.errors import CascadeError
    from cascade_rt.measuring.evaluation import evaluate
    from cascade_rt.results.segmentation import Segmentation
    from cascade_rt.run.cascade import Cascade, open_cascade
    from cascade_rt.run.inference import RunOptions
    from cascade_rt.run.segment import segment
    from cascade_rt.scans.nifti.options import ScanOptions
    from cascade_rt.scans.opening import read_volume
    from cascade_rt.scans.search import SearchOptions
    from cascade_rt.scans.volume import Volume, read_mask, write_mask
    from cascade_rt.training.loop import train

_HOMES = {
    "Bundle": "bundles.bundle",
    "Cascade": "run.cascade",
    "CascadeConfig": "config",
    "CascadeError": "errors",
    "CropConfig": "config",
    "EngineRequest": "engines",
    "Manifest": "bundles.bundle",
    "RunOptions": "run.inference",
    "ScanOptions": "scans.nifti.options",
    "SearchOptions": "scans.search",
    "Segmentation": "results.segmentation",
    "TrainConfig": "config",
    "Volume": "scans.volume",
    "check_pairs": "data.case_pairs",
    "evaluate": "measuring.evaluation",
    "load_config": "config",
    "open_cascade": "run.cascade",
    "open_cases": "data.slices",
    "pair_cases": "data.case_pairs",
    "read_bundle": "bundles.bundle",
    "read_mask": "scans.volume",
    "read_volume": "scans.opening",
    "segment": "run.segment",
    "train": "training.loop",
    "write_mask": "scans.volume",
}

__all__ = [
    "Bundle",
    "Cascade",
    "CascadeConfig",
    "CascadeError",
    "CropConfig",
    "EngineRequest",
    "Manifest",
    "RunOptions",
    "ScanOptions",
    "SearchOptions",
    "Segmentation",
    "TrainConfig",
    "Volume",
    "__version__",
    "check_pairs",
    "evaluate",
    "load_config",
    "open_cascade",
    "open_cases",
    "pair_cases",
    "read_bundle",
    "read_mask",
    "read_volume",
    "segment",
    "train",
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
