"""Segment scan files, and write their masks, reports and previews."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial

from cascade_rt.common.arguments import check_argument
from cascade_rt.common.hashing import file_state
from cascade_rt.common.outputs import make_folder
from cascade_rt.common.timing import Stopwatch
from cascade_rt.errors import CascadeError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.case import Case
from cascade_rt.run.extra_results import EXTRA_FORMATS
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import open_scan
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions, check_search
from cascade_rt.scans.source import ScanInBackground, ScanReader, ScanSource

Job = Case
"""Former name."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How scan files are read, searched and written."""

    reading: ScanOptions = DEFAULT_SCAN_OPTIONS
    """Facts about the files that the user supplies because the files do not state them."""
    search: SearchOptions = WHOLE_SCAN
    """Where stage 1 looks; anything but the whole scan may change the mask."""
    overwrite: bool = False
    """Replace existing results."""

    def __post_init__(self) -> None:
        check_argument("reading", self.reading, ScanOptions, "ScanOptions, such as ScanOptions(assume_hu=True)")
        check_search(self.search, scattered=self.reading.scattered)


DEFAULT_RUN_OPTIONS = RunOptions()


def infer_file(
    cascade: Cascade,
    case: Case,
    options: RunOptions = DEFAULT_RUN_OPTIONS,
    *,
    on_open: Callable[[ScanSource], None] = lambda _: None,
    on_slices: Callable[[int], None] = lambda _: None,
) -> Segmentation:
    """Segment one scan file, and write its mask, its report and its extra results.

    See `infer_files` for the arguments and for when the callbacks are called.

    Returns:
        The segmentation; its timings include loading and saving.

    Raises:
        InputError: The scan cannot be used. Nothing is written.
        OutputError: A result cannot be written. No result is left behind.
        EngineError: An engine returned something that cannot be a result.
    """
    ((_, outcome),) = infer_files(cascade, [case], options, on_open=on_open, on_slices=on_slices)
    if isinstance(outcome, CascadeError):
        raise outcome
    return outcome


def infer_files(
    cascade: Cascade,
    cases: Iterable[Case],
    options: RunOptions = DEFAULT_RUN_OPTIONS,
    *,
    on_open: Callable[[ScanSource], None] = lambda _: None,
    on_slices: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Case, Segmentation | CascadeError]]:
    """Segment scan files one after the other, prefetching the next scan and writing the previous one in parallel.

    The networks run in the thread of the caller. Reading and writing use one other thread each, which end with the
    iterator. At any time at most one scan is being read, one computed and one written, so memory holds three scans and
    two masks, plus whatever the caller keeps.

    Args:
        cascade: An open cascade.
        cases: The scans and where their results go. One case is taken ahead of the scan being computed.
        options: How they are read, searched and written.
        on_open: Called when it is a scan's turn, once its header is read; its voxels may still be missing.
        on_slices: Called with the number of slices of that scan just finished.

    Yields:
        Each case, in order, with its segmentation or with the error that its scan ended in. A failed scan leaves no
        files, and the other scans continue. An outcome is yielded once its results are written, which is after the next
        scan was computed. Errors that are not a `CascadeError` are raised.
    """
    check_argument("options", options, RunOptions, "RunOptions, such as RunOptions(overwrite=True)")
    with ThreadPoolExecutor(1, "write") as writer, closing(_read_ahead(cases, options)) as scans:
        last: tuple[Case, Future[Segmentation | CascadeError]] | None = None
        for case, scan in scans:
            stopwatch = Stopwatch()
            found: Segmentation | CascadeError
            try:
                found = cascade.run(
                    scan,
                    keep_probabilities="uint8" if "probabilities" in case.extras else False,
                    search=options.search,
                    on_open=on_open,
                    on_slices=on_slices,
                )
            except CascadeError as error:
                found = error
            if last is not None:
                yield last[0], last[1].result()
            last = case, writer.submit(_write, case, found, stopwatch, overwrite=options.overwrite)
        if last is not None:
            yield last[0], last[1].result()


def _read_ahead(cases: Iterable[Case], options: RunOptions) -> Generator[tuple[Case, ScanInBackground]]:
    """Yield scans that are being read, prefetching the next one. Each scan is closed after its turn."""

    def open_checked(case: Case) -> ScanReader:
        case.check_output(overwrite=options.overwrite)
        with ExitStack() as undo:
            reader = undo.enter_context(open_scan(case.scan, case.reading(options.reading)))
            case.check_scan(reader.volume)
            undo.pop_all()
        return reader

    ahead: deque[tuple[Case, ScanInBackground]] = deque()
    with ThreadPoolExecutor(1, "read") as reader:
        try:
            for case in cases:
                ahead.append((case, ScanInBackground(partial(open_checked, case), reader)))
                if len(ahead) == 2:
                    yield ahead[0]
                    ahead.popleft()[1].close()
            while ahead:
                yield ahead[0]
                ahead.popleft()[1].close()
        finally:
            for _, scan in ahead:
                scan.close()


def _write(
    case: Case, found: Segmentation | CascadeError, turn: Stopwatch, *, overwrite: bool
) -> Segmentation | CascadeError:
    """Write all results of a scan, or none and return why."""
    if isinstance(found, CascadeError):
        return found
    try:
        return _write_all(case, found, turn, overwrite=overwrite)
    except CascadeError as error:
        return error


def _write_all(case: Case, found: Segmentation, turn: Stopwatch, *, overwrite: bool) -> Segmentation:
    stopwatch, files = Stopwatch(), {}
    with case.output_gate(), ExitStack() as undo:
        make_folder(case.mask.parent)
        with stopwatch.step("save"):
            found.save(case.mask, overwrite=overwrite)
            undo.callback(case.mask.unlink, missing_ok=True)
            files[case.mask] = file_state(case.mask)
        found = replace(
            found,
            input_file=found.volume.file,
            mask_file=files[case.mask].record,
            warnings=(*found.warnings, *case.doubts(found.volume)),
        )
        segmentation = found.with_timings(stopwatch.seconds, turn.elapsed)
        segmentation.save_report(case.report, overwrite=overwrite)
        undo.callback(case.report.unlink, missing_ok=True)
        files[case.report] = file_state(case.report)
        for extra in case.extras:
            path = case.extra_path(extra)
            EXTRA_FORMATS[extra].write(segmentation, path, overwrite)
            undo.callback(path.unlink, missing_ok=True)
            files[path] = file_state(path)
        undo.pop_all()
    return replace(segmentation, result_files=files)
