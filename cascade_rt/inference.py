"""From a scan file to its mask and report."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade_rt.cascade import Cascade
from cascade_rt.errors import OutputError, OutputExistsError, UsageError
from cascade_rt.preview import save_preview
from cascade_rt.segmentation import Segmentation
from cascade_rt.timing import Stopwatch
from cascade_rt.volume import Volume, read_volume

MASK_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True, slots=True)
class Job:
    """One scan and where its results go."""

    scan: Path
    mask: Path
    report: Path
    picture: Path | None = None
    """Preview of the most telling slice, where asked for."""

    @property
    def results(self) -> tuple[Path, ...]:
        """All files that the job writes."""
        return (self.mask, self.report) if self.picture is None else (self.mask, self.report, self.picture)


def plan_jobs(scans: Sequence[Path], output: Path | None, *, pictures: bool = False) -> list[Job]:
    """Decide where the results of each scan go.

    Args:
        scans: Scan files.
        output: A mask file for a single scan (`.nii` or `.nii.gz`), or a folder; none: the current folder.
        pictures: Whether to draw a preview of each mask.

    Returns:
        A job for each scan. In a folder its mask is `<name>_seg.nii.gz`, its report `<name>_seg.json` and its picture
        `<name>_seg.png`.

    Raises:
        UsageError: Several scans for one file, or two scans whose results would have the same name.
    """
    if output is not None and output.name.endswith(MASK_SUFFIXES) and not output.is_dir():
        if len(scans) > 1:
            raise UsageError(f"{output}: is one file for {len(scans)} scans; name a folder")
        return [_job(scans[0], output, pictures)]
    folder = output or Path()
    jobs: dict[str, Job] = {}
    for scan in scans:
        name = scan_name(scan)
        if name in jobs:
            raise UsageError(f"{jobs[name].scan} and {scan} would both become {name}_seg.nii.gz; segment them apart")
        jobs[name] = _job(scan, folder / f"{name}_seg.nii.gz", pictures)
    return list(jobs.values())


def prepare_output(job: Job, *, overwrite: bool) -> None:
    """Find out before the work begins whether its results can be written.

    Raises:
        OutputExistsError: A result is there and `overwrite` is off.
        OutputError: The folder is missing and cannot be made, or cannot be written to.
    """
    folder = job.mask.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); name another folder with -o") from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: cannot be written to; name another folder with -o")
    for path in job.results:
        if not overwrite and path.exists():
            raise OutputExistsError(f"{path}: is there already; replace it with --overwrite, or name another with -o")


def infer_file(
    cascade: Cascade,
    job: Job,
    *,
    overwrite: bool = False,
    on_open: Callable[[Volume], None] = lambda _: None,
    on_slices: Callable[[int], None] = lambda _: None,
) -> Segmentation:
    """Segment one scan file and write its mask, its report and, where asked for, its picture.

    Args:
        cascade: An open cascade; it may serve many scans.
        job: The scan and where its results go.
        overwrite: Replace results that are there.
        on_open: Called with the scan once it is read.
        on_slices: Called with the number of slices just finished.

    Returns:
        The segmentation; its timings cover loading and saving.

    Raises:
        InputError: The scan cannot be used. Nothing is written.
        OutputError: The results cannot be written.
    """
    prepare_output(job, overwrite=overwrite)
    stopwatch = Stopwatch()
    with stopwatch.step("load"):
        volume = read_volume(job.scan)
    on_open(volume)
    segmentation = cascade.run(volume, on_slices=on_slices)
    with stopwatch.step("save"):
        segmentation.save(job.mask, overwrite=overwrite)
    segmentation = segmentation.with_timings(stopwatch.seconds)
    segmentation.save_report(job.report, overwrite=overwrite)
    if job.picture is not None:
        save_preview(segmentation, job.picture, overwrite=overwrite)
    return segmentation


def scan_name(path: Path) -> str:
    """The file name without `.nii.gz` or `.nii`."""
    for suffix in MASK_SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def _job(scan: Path, mask: Path, pictures: bool) -> Job:
    stem = scan_name(mask)
    picture = mask.with_name(f"{stem}.png") if pictures else None
    return Job(scan, mask, mask.with_name(f"{stem}.json"), picture)
