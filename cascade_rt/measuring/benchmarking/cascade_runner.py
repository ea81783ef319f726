"""Run the cascade of this package as an arm: what `cascade-rt infer` does with one scan."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cascade_rt.engines import EngineRequest
from cascade_rt.engines.plans import PlanSource, no_plans
from cascade_rt.measuring.benchmarking.arms import Arm
from cascade_rt.measuring.benchmarking.worker import OpenRunner
from cascade_rt.run.cascade import Cascade, open_cascade
from cascade_rt.run.case import Case
from cascade_rt.run.inference import RunOptions, infer_file
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions


class CascadeRunner:
    """Segments scan files with an open cascade, and writes each report as JSON beside its mask."""

    def __init__(
        self, cascade: Cascade, search: SearchOptions = WHOLE_SCAN, reading: ScanOptions = DEFAULT_SCAN_OPTIONS
    ) -> None:
        self._cascade = cascade
        self._options = RunOptions(reading, search, overwrite=True)

    @property
    def description(self) -> Mapping[str, Any]:
        """Description of the engine of both stages."""
        return asdict(self._cascade.engines.stage1.info)

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        """Segment a scan (see `Runner`)."""
        return infer_file(self._cascade, Case(scan, mask, report_path(mask)), self._options).timings


def report_path(mask: Path) -> Path:
    """Return the path of the report of a mask."""
    return mask.with_name(f"{mask.name}.json")


def open_arm(
    bundle: Path,
    arm: Arm,
    plans: PlanSource = no_plans,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
    device: int = 0,
) -> CascadeRunner:
    """Open an arm on a bundle, without fallbacks: an arm is measured as planned or not at all.

    Raises like `open_cascade`.
    """
    engines = EngineRequest(arm.backend, arm.precision, plans, device)
    cascade = open_cascade(bundle, engines=engines, falls_back=False)
    return CascadeRunner(cascade, arm.search, reading)


def runners(
    bundle: Path,
    arms: tuple[Arm, ...],
    plans: PlanSource = no_plans,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
    device: int = 0,
) -> dict[str, OpenRunner]:
    """Return the function that opens each arm, by arm name.

    Args:
        bundle: Folder of the bundle.
        arms: The arms.
        plans: Where the backend `tensorrt` gets its engines from; must be picklable, such as a module-level function.
        reading: Facts about the scans that the user supplies because the files do not state them.
        device: Number of the GPU for arms that run on one.
    """
    return {arm.name: partial(open_arm, bundle, arm, plans, reading, device) for arm in arms}
