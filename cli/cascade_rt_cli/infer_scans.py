"""Run a cascade on scan files. A failed scan does not stop the others."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.progress import Progress

from cascade_rt.engines import BackendChoice, PrecisionChoice
from cascade_rt.errors import CascadeError, PartialFailureError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cohort.in_process import segment_files
from cascade_rt.run.fallback import FallbackCascade, open_fallback_cascade
from cascade_rt.run.inference import Job
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions
from cascade_rt_cli.console import print_intended_use, print_segmentation, progress_bar, results_console
from cascade_rt_cli.messages import printable, shown, shown_message
from cascade_rt_cli.output import is_json, print_event, print_note
from cascade_rt_cli.plans import plans


def infer_scans(
    jobs: Sequence[Job],
    bundle: Path | None,
    backend: BackendChoice,
    precision: PrecisionChoice,
    reading: ScanOptions,
    *,
    public_key: Path | None,
    search: SearchOptions = WHOLE_SCAN,
    overwrite: bool,
) -> None:
    """Segment scans and print each result. A failed scan does not stop the others.

    Raises:
        CascadeError: The only scan failed.
        PartialFailureError: Some of several scans failed. The message says which and why.
    """
    failures = []
    with open_fallback_cascade(bundle, backend, precision, plans, public_key) as cascade:
        for job in jobs:
            with progress_bar(shown=not is_json()) as progress:
                outcome = _infer_with_progress(cascade, job, progress, reading, search, overwrite=overwrite)
            if isinstance(outcome, Segmentation):
                _print(job, outcome)
                continue
            if overwrite and os.path.lexists(job.mask):
                print_note(f"{shown(job.mask)}: is still that of an earlier run")
            if len(jobs) == 1:
                raise outcome
            failures.append(shown_message(str(outcome), (job.scan, *job.results)))
    if failures:
        raise PartialFailureError(f"{len(failures)} of {len(jobs)} scans failed\n  " + "\n  ".join(failures))


def _print(job: Job, segmentation: Segmentation) -> None:
    if is_json():
        print_event("done", case=segmentation.volume.name, report=segmentation.to_json())
        return
    console = results_console()
    print_segmentation(console, job, segmentation)
    print_intended_use(console, segmentation)


def _infer_with_progress(
    cascade: FallbackCascade,
    job: Job,
    progress: Progress,
    reading: ScanOptions,
    search: SearchOptions,
    *,
    overwrite: bool,
) -> Segmentation | CascadeError:
    bar = progress.add_task(escape(printable(job.scan.name)), total=None)
    ((_, outcome),) = segment_files(
        cascade,
        [job],
        reading=reading,
        overwrite=overwrite,
        search=search,
        on_open=lambda scan: progress.update(bar, total=len(scan.voxels)),
        on_slices=lambda count: progress.advance(bar, count),
    )
    return outcome
