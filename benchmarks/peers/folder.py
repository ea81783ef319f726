"""Many scans: a folder of them in one go, beside as many single runs of the same warm engines."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade_rt.errors import CascadeError
from cascade_rt.measuring.benchmarking.arms import Arm
from cascade_rt.run.cascade import open_cascade
from cascade_rt.run.cohort.cases import plan_cases
from cascade_rt.run.inference import RunOptions, infer_file, infer_files

_REPLACE = RunOptions(overwrite=True)


class FolderRunner:
    """Segments copies of a scan: all as one folder, then each on its own; as a runner, so that it has its process."""

    def __init__(self, bundle: Path, arm: Arm, count: int) -> None:
        self._cascade = open_cascade(bundle, arm.backend, arm.precision)
        self._count = count

    @property
    def description(self) -> Mapping[str, Any]:
        """How many scans."""
        return {"scans": self._count}

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        """Segment the copies both ways, with results beside `mask`; returns `folder` and `single`, seconds each."""
        copies = mask.with_name("copies")
        copies.mkdir(exist_ok=True)
        scans = [Path(shutil.copy(scan, copies / f"scan_{index}.nii.gz")) for index in range(self._count)]
        cases = plan_cases(scans, mask.with_name("masks"))
        # Warm, as the single runs are.
        infer_file(self._cascade, cases[0], _REPLACE)
        start = time.perf_counter()
        for _, outcome in infer_files(self._cascade, cases, _REPLACE):
            if isinstance(outcome, CascadeError):
                raise outcome
        middle = time.perf_counter()
        for case in cases:
            infer_file(self._cascade, case, _REPLACE)
        return {"folder": middle - start, "single": time.perf_counter() - middle}
