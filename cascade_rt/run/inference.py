"""Segment scan files, and write their masks, reports and previews."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cascade_rt.common.arguments import check_argument
from cascade_rt.common.hashing import record_file
from cascade_rt.common.outputs import check_file, check_folder, make_folder, refuse_inputs, write_error
from cascade_rt.common.timing import Stopwatch
from cascade_rt.errors import CascadeError, UsageError
from cascade_rt.results.preview import save_preview
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.nifti import split_suffix
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions
from cascade_rt.scans.source import ScanInBackground, ScanSource
from cascade_rt.scans.volume import ScanReader, open_scan

_FOREIGN_SUFFIXES = {".mha", ".mhd", ".nrrd", ".hdr", ".img", ".dcm", ".gz", ".png", ".json"}


@dataclass(frozen=True, slots=True)
class Job:
    """One scan and where its results go."""

    scan: Path
    mask: Path
    report: Path
    picture: Path | None = None
    """Preview of the most informative slice, or None if not requested."""

    @property
    def results(self) -> tuple[Path, ...]:
        """All files written by the job."""
        return (self.mask, self.report) if self.picture is None else (self.mask, self.report, self.picture)


def plan_jobs(scans: Sequence[Path], output: Path | None, *, pictures: bool = False) -> list[Job]:
    """Decide where the results of each scan go.

    Args:
        scans: Scan files.
        output: A mask file for a single scan (`.nii` or `.nii.gz`), or a folder; None for the current folder.
        pictures: Whether to draw a preview of each mask.

    Returns:
        A job for each scan. In a folder, its mask is `<name>_seg.nii.gz`, its report `<name>_seg.json` and its picture
        `<name>_seg.png`.

    Raises:
        UsageError: One output file is given for several scans, two scans would have results of the same name, a result
            would overwrite a scan, or the output file is not NIfTI.
    """
    if output is not None and _is_file_name(output):
        if len(scans) > 1:
            raise UsageError(f"{output}: is one file for {len(scans)} scans; name a folder")
        jobs = [_job(scans[0], output, pictures)]
    else:
        jobs = _jobs_in_folder(scans, output or Path(), pictures)
    refuse_scans_as_results(jobs)
    return jobs


def job_in_folder(scan: Path, folder: Path, name: str, *, pictures: bool) -> Job:
    """Return the job that writes `<name>_seg.nii.gz`, `<name>_seg.json` and `<name>_seg.png` to a folder."""
    return _job(scan, folder / f"{name}_seg.nii.gz", pictures)


def refuse_scans_as_results(jobs: Sequence[Job]) -> None:
    """Raise UsageError if a result would overwrite a scan, even through a link."""
    refuse_inputs([path for job in jobs for path in job.results], [job.scan for job in jobs])


def check_output(job: Job, *, overwrite: bool) -> None:
    """Check, without leaving a trace, that the results of a job can be written before work begins.

    Raises:
        OutputExistsError: A result exists and `overwrite` is False.
        OutputError: The folder, or the one it would be created in, cannot be written to, or a result is a folder.
    """
    with _output_gate(job):
        check_folder(job.mask.parent)
        for path in job.results:
            if path.parent.is_dir():
                check_file(path, overwrite=overwrite)


@contextmanager
def _output_gate(job: Job) -> Iterator[None]:
    """Turn any OSError about the results of a scan into an error of that scan, so that other scans continue."""
    try:
        yield
    except OSError as error:
        raise write_error(job.mask, error) from error


def infer_file(
    cascade: Cascade,
    job: Job,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
    *,
    overwrite: bool = False,
    search: SearchOptions = WHOLE_SCAN,
    on_open: Callable[[ScanSource], None] = lambda _: None,
    on_slices: Callable[[int], None] = lambda _: None,
) -> Segmentation:
    """Segment one scan file, and write its mask, its report and, if requested, its picture.

    See `infer_files` for the arguments and for when the callbacks are called.

    Returns:
        The segmentation; its timings include loading and saving.

    Raises:
        InputError: The scan cannot be used. Nothing is written.
        OutputError: A result cannot be written. No result is left behind.
        EngineError: An engine returned something that cannot be a result.
    """
    ((_, outcome),) = infer_files(
        cascade, [job], reading, overwrite=overwrite, search=search, on_open=on_open, on_slices=on_slices
    )
    if isinstance(outcome, CascadeError):
        raise outcome
    return outcome


def infer_files(
    cascade: Cascade,
    jobs: Iterable[Job],
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
    *,
    overwrite: bool = False,
    search: SearchOptions = WHOLE_SCAN,
    on_open: Callable[[ScanSource], None] = lambda _: None,
    on_slices: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Job, Segmentation | CascadeError]]:
    """Segment scan files one after the other, prefetching the next scan and writing the previous one in parallel.

    The networks run in the thread of the caller. Reading and writing use one other thread each, which end with the
    iterator. At any time at most one scan is being read, one computed and one written, so memory holds three scans and
    two masks, plus whatever the caller keeps.

    Args:
        cascade: An open cascade.
        jobs: The scans and where their results go. One job is taken ahead of the scan being computed.
        reading: Facts about the files that the user supplies because the files do not state them.
        overwrite: Replace existing results.
        search: Where stage 1 looks; anything but the whole scan may change the mask.
        on_open: Called when it is a scan's turn, once its header is read; its voxels may still be missing.
        on_slices: Called with the number of slices of that scan just finished.

    Yields:
        Each job, in order, with its segmentation or with the error that its scan ended in. A failed scan leaves no
        files, and the other scans continue. An outcome is yielded once its results are written, which is after the next
        scan was computed. Errors that are not a `CascadeError` are raised.
    """
    check_argument("reading", reading, ScanOptions, "ScanOptions, such as ScanOptions(assume_hu=True)")
    with ThreadPoolExecutor(1, "write") as writer, closing(_read_ahead(jobs, reading, overwrite=overwrite)) as scans:
        last: tuple[Job, Future[Segmentation | CascadeError]] | None = None
        for job, scan in scans:
            stopwatch = Stopwatch()
            found = _attempt(partial(cascade.run, scan, search=search, on_open=on_open, on_slices=on_slices))
            if last is not None:
                yield last[0], last[1].result()
            last = job, writer.submit(_attempt, partial(_write, job, found, stopwatch, overwrite=overwrite))
        if last is not None:
            yield last[0], last[1].result()


def _read_ahead(
    jobs: Iterable[Job], reading: ScanOptions, *, overwrite: bool
) -> Generator[tuple[Job, ScanInBackground]]:
    """Yield scans that are being read, prefetching the next one. Each scan is closed after its turn."""

    def open_checked(job: Job) -> ScanReader:
        check_output(job, overwrite=overwrite)
        return open_scan(job.scan, reading)

    ahead: deque[tuple[Job, ScanInBackground]] = deque()
    with ThreadPoolExecutor(1, "read") as reader:
        try:
            for job in jobs:
                ahead.append((job, ScanInBackground(partial(open_checked, job), reader)))
                if len(ahead) == 2:
                    yield ahead[0]
                    ahead.popleft()[1].close()
            while ahead:
                yield ahead[0]
                ahead.popleft()[1].close()
        finally:
            for _, scan in ahead:
                scan.close()


def _attempt(work: Callable[[], Segmentation]) -> Segmentation | CascadeError:
    try:
        return work()
    except CascadeError as error:
        return error


def _write(job: Job, found: Segmentation | CascadeError, turn: Stopwatch, *, overwrite: bool) -> Segmentation:
    """Write all results of a scan, or none."""
    if isinstance(found, CascadeError):
        raise found
    stopwatch = Stopwatch()
    with _output_gate(job), ExitStack() as undo:
        make_folder(job.mask.parent)
        with stopwatch.step("save"):
            found.save(job.mask, overwrite=overwrite)
            undo.callback(job.mask.unlink, missing_ok=True)
            found = found.with_files(input_file=found.volume.file, mask_file=record_file(job.mask))
        segmentation = found.with_timings(stopwatch.seconds, turn.elapsed)
        segmentation.save_report(job.report, overwrite=overwrite)
        undo.callback(job.report.unlink, missing_ok=True)
        if job.picture is not None:
            save_preview(segmentation, job.picture, overwrite=overwrite)
        undo.pop_all()
    return segmentation


def _jobs_in_folder(scans: Sequence[Path], folder: Path, pictures: bool) -> list[Job]:
    jobs: dict[str, Job] = {}
    for scan in scans:
        name, _ = split_suffix(scan.name)
        if name in jobs:
            raise UsageError(f"{jobs[name].scan} and {scan} would both become {name}_seg.nii.gz; segment them apart")
        jobs[name] = job_in_folder(scan, folder, name, pictures=pictures)
    return list(jobs.values())


def _is_file_name(output: Path) -> bool:
    """Return whether an output is meant as one mask file rather than as a folder."""
    if output.is_dir():
        return False
    if output.suffix.lower() in _FOREIGN_SUFFIXES and not split_suffix(output.name)[1]:
        raise UsageError(f"{output}: a mask is written as NIfTI; let the name end in .nii.gz, or name a folder")
    return bool(split_suffix(output.name)[1])


def _job(scan: Path, mask: Path, pictures: bool) -> Job:
    stem, _ = split_suffix(mask.name)
    picture = mask.with_name(f"{stem}.png") if pictures else None
    return Job(scan, mask, mask.with_name(f"{stem}.json"), picture)
