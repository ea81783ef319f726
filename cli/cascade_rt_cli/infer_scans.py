"""Running a cascade over scan files, one failure at a time."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.progress import Progress

from cascade_rt.cascade import Cascade, open_cascade
from cascade_rt.engines import BackendChoice, PrecisionChoice
from cascade_rt.errors import CascadeError, PartialFailureError
from cascade_rt.inference import Job, infer_file
from cascade_rt.nifti.options import ScanOptions
from cascade_rt.search import WHOLE_SCAN, SearchOptions
from cascade_rt.segmentation import Segmentation
from cascade_rt_cli.console import print_intended_use, print_segmentation, printable, progress_bar, results_console
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
    """Segment scans and print each result; a scan that fails does not stop the others.

    Raises:
        CascadeError: The only scan failed.
        PartialFailureError: Some of several scans failed; the message says which and why.
    """
    console, failures = results_console(), []
    with open_cascade(bundle, backend, precision, plans, public_key) as cascade:
        for job in jobs:
            try:
                with progress_bar() as progress:
                    segmentation = _infer_with_progress(cascade, job, progress, reading, search, overwrite=overwrite)
            except CascadeError as error:
                if len(jobs) == 1:
                    raise
                failures.append(str(error))
            else:
                print_segmentation(console, job, segmentation)
                print_intended_use(console, segmentation)
    if failures:
        raise PartialFailureError(f"{len(failures)} of {len(jobs)} scans failed\n  " + "\n  ".join(failures))


def _infer_with_progress(
    cascade: Cascade, job: Job, progress: Progress, reading: ScanOptions, search: SearchOptions, *, overwrite: bool
) -> Segmentation:
    bar = progress.add_task(escape(printable(job.scan.name)), total=None)
    return infer_file(
        cascade,
        job,
        reading,
        overwrite=overwrite,
        search=search,
        on_open=lambda scan: progress.update(bar, total=len(scan.voxels)),
        on_slices=lambda count: progress.advance(bar, count),
    )
