"""`cascade-rt infer`: segment scans and write masks and reports."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascade_rt.bundles.bundle import Bundle, default_bundle_path, read_bundle
from cascade_rt.common.atomic import remove_leftovers
from cascade_rt.common.outputs import make_folder, probe_folder
from cascade_rt.common.version import __version__
from cascade_rt.engines import GPU_BACKENDS, EngineRequest
from cascade_rt.engines.nvidia import check_alike
from cascade_rt.errors import UsageError
from cascade_rt.scans.names import is_mask_name
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.messages import shown
from cascade_rt_cli.options import (
    PATH,
    FiniteFloat,
    bundle_option,
    engine_options,
    overwrite_option,
    scan_options,
    signature_option,
)
from cascade_rt_cli.output import log_format_option, print_note

if TYPE_CHECKING:
    from cascade_rt.run.cascade import Cascade
    from cascade_rt.run.case import Case
    from cascade_rt.run.cohort.cases import Shard
    from cascade_rt.run.cohort.resume_state import ResumeState
    from cascade_rt.run.cohort.run import Runner
    from cascade_rt.run.extra_results import ExtraResult
    from cascade_rt.run.inference import RunOptions
    from cascade_rt_cli.infer_output import CohortOutput, ScanOutput


_EXTRA_FLAGS: "tuple[tuple[ExtraResult, str, str], ...]" = (
    ("picture", "--preview", "Also draw the most informative slice with outlines, as <name>_seg.png."),
    (
        "probabilities",
        "--save-probabilities",
        "Also write the probabilities of pancreas and tumor on the scan's own grid, as <name>_seg_prob.nii.gz: four "
        "axes, one map after the other along the last, 0 to 1 in steps of 1/255 (uint8 with a slope in the header).",
    ),
    ("dicom-seg", "--dicom-seg", "Also write a DICOM segmentation, <name>_seg.dcm, of scans read from DICOM."),
    (
        "dicom-seg-labelmap",
        "--dicom-seg-labelmap",
        "The same as a compressed label map, which is smaller; older archives and viewers do not read it.",
    ),
    ("dicom-sr", "--dicom-sr", "With --dicom-seg: also write a DICOM report with volumes, <name>_seg_sr.dcm."),
    ("rtstruct", "--rtstruct", "Also write a DICOM RT structure set, <name>_seg_rtstruct.dcm."),
    (
        "page",
        "--report",
        "Also write the report with a viewer of the slices, as <name>_seg.html: one file, no network.",
    ),
)
_COHORT_OPTIONS = (
    click.option("--resume", is_flag=True, help="Continue an earlier run into OUT; finished scans are not repeated."),
    click.option(
        "--verify",
        is_flag=True,
        help="With --resume: compare all scans and results by content, not by size and modification time.",
    ),
    click.option(
        "--shard", metavar="I/N", help="Compute only part I, from 0, of N; parts can run at once, on several machines."
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="K",
        help="Compute in K processes; if one crashes or hangs, the others continue. Default: in this process.",
    ),
    click.option(
        "--devices",
        metavar="N,N,...",
        help="Compute on these GPUs, such as 0,1 (doctor lists them), with a worker for each; more --workers take them "
        "in turn. A single scan is computed on the first.",
    ),
    click.option(
        "--timeout",
        type=FiniteFloat(min=0, min_open=True),
        metavar="SECONDS",
        help="With --workers or --devices: give up on a scan that makes no progress for this long. Default: 600.",
    ),
)


@dataclass(frozen=True, slots=True)
class CohortOptions:
    """How the cases of a cohort are computed. None of these options changes a mask."""

    resume: bool = False
    verify: bool = False
    part: "Shard | None" = None
    workers: int | None = None
    """Number of worker processes, or None to run in this process."""
    timeout: float | None = None
    """Seconds without progress after which a worker is killed, or None for the default."""
    devices: tuple[int, ...] = ()
    """Numbers of the GPUs that the workers take in turn; empty for the one that the engines were requested on."""


def cohort_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of cohorts to a command, passed as one argument `how`, a `CohortOptions`."""

    @wraps(command)
    def with_how(
        *,
        resume: bool,
        verify: bool,
        shard: str | None,
        workers: int | None,
        devices: str | None,
        timeout: float | None,
        **others: Any,
    ) -> None:
        from cascade_rt.run.cohort.cases import Shard

        if verify and not resume:
            raise UsageError("--verify checks the results of an earlier run; add --resume")
        gpus = () if devices is None else _gpu_numbers(devices)
        workers = workers or len(gpus) or None
        if workers is not None and workers < len(gpus):
            raise UsageError(f"--devices names {len(gpus)} GPUs, more than --workers {workers}; name fewer")
        if timeout is not None and workers is None:
            raise UsageError("--timeout cannot stop a scan that hangs in this process; add --workers 1")
        part = Shard.parse(shard) if shard else None
        command(**others, how=CohortOptions(resume, verify, part, workers, timeout, gpus))

    for option in reversed(_COHORT_OPTIONS):
        with_how = option(with_how)
    return with_how


def _gpu_numbers(text: str) -> tuple[int, ...]:
    """Parse a list of different GPUs. Raises UsageError if it is none."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--devices takes the numbers of GPUs, such as 0,1, not {text!r}; doctor lists them")
    numbers = tuple(map(int, parts))
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--devices {text} names a GPU twice; for more processes on a GPU, use --workers")
    return numbers


def extra_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for each extra result to a command, passed as one argument `extras`."""

    @wraps(command)
    def with_extras(**arguments: Any) -> None:
        asked = tuple(extra for extra, _, _ in _EXTRA_FLAGS if arguments.pop(_parameter(extra)))
        command(extras=asked, **arguments)

    for extra, flag, text in reversed(_EXTRA_FLAGS):
        with_extras = click.option(flag, _parameter(extra), is_flag=True, help=text)(with_extras)
    return with_extras


def _parameter(extra: "ExtraResult") -> str:
    """Return the name of the parameter for an extra result: click takes identifiers only."""
    return extra.replace("-", "_")


@click.command()
@click.argument("scans", nargs=-1, required=True, type=PATH, metavar="SCAN|FOLDER|LIST.txt...")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="OUT",
    help="A mask file (.nii.gz, .nii, .seg.nrrd, .nrrd, .mha) for one scan, or a folder. Default: the current folder.",
)
@extra_options
@bundle_option
@signature_option
@engine_options
@click.option(
    "--z-search",
    type=click.IntRange(min=1),
    default=1,
    metavar="K",
    help="Search every K-th slice for the pancreas first, then only around those that contain it. May change the mask.",
)
@click.option(
    "--body-box", is_flag=True, help="Search for the pancreas only in a box around the body. May change the mask."
)
@overwrite_option
@scan_options
@cohort_options
@log_format_option
def infer(
    scans: tuple[Path, ...],
    output: Path | None,
    extras: "tuple[ExtraResult, ...]",
    bundle: Path | None,
    public_key: Path | None,
    engines: EngineRequest,
    z_search: int,
    body_box: bool,
    overwrite: bool,
    reading: ScanOptions,
    how: CohortOptions,
) -> None:
    """Segment CT scans: NIfTI, NRRD, MetaImage, and DICOM (folders, .zip archives, enhanced CT).

    For each SCAN this writes a mask on the scan's own grid (0 background, 1 pancreas, 2 tumor) and in its format,
    <name>_seg.nii.gz, <name>.seg.nrrd (which 3D Slicer opens as a segmentation) or <name>_seg.mha, and a
    report, <name>_seg.json, with volumes, lesions, the time of each step and what computed them.

    A folder with one DICOM study is a scan. If the study has several CT series, --series chooses one.

    Any other FOLDER is searched recursively for scans; a LIST.txt has the path of one scan per line, and comments on
    lines that begin with #. OUT then mirrors their folders, OUT/journal.jsonl records the outcome of each scan, and at
    the end OUT/results.csv has a row for each (see `cascade-rt summarize`). One bad scan does not stop the others: the
    exit code is 3 and those that failed are listed. After a run was stopped or killed, or when the folder has new
    scans, continue with --resume.

    \b
    Examples:
      cascade-rt infer scan.nii.gz --preview
      cascade-rt infer scans/*.nii.gz -o masks --bundle bundles/first
      cascade-rt infer study --series 3 -o masks
      cascade-rt infer scans -o masks --resume --workers 2
      cascade-rt infer scans -o masks --devices 0,1,2,3

    \b
    A Slurm array of 16 jobs (#SBATCH --array=0-15), each of which may be resubmitted unchanged:
      cascade-rt infer scans -o masks --resume --shard $SLURM_ARRAY_TASK_ID/16
    """  # noqa: D301
    from cascade_rt.run.cascade import open_cascade
    from cascade_rt.run.cohort.run import run_cases
    from cascade_rt.run.inference import RunOptions
    from cascade_rt.scans.search import SearchOptions
    from cascade_rt_cli.infer_output import CohortOutput, ScanOutput

    _check_devices(engines, how.devices)
    options = RunOptions(reading, SearchOptions(z_search, body_box), overwrite)
    opening = partial(open_cascade, bundle, engines=engines, public_key=public_key)
    cases, folder = _plan(scans, output, how, extras, reading)
    with ExitStack() as stack:
        state: ResumeState | None = None
        told: CohortOutput | ScanOutput = ScanOutput(cases, overwrite=overwrite)
        if folder is not None:
            opened = read_bundle(bundle or default_bundle_path(), public_key)
            opening = partial(opening, sha256=opened.sha256)
            _print_plan(len(cases), opened, engines, how)
            settings = _settings(opened, engines, options, extras)
            state = stack.enter_context(_journal(folder, how, settings, reading, overwrite=overwrite))
            told = CohortOutput(cases, opened.manifest, folder, how.part)
        stack.enter_context(told)
        ways_to_open = [partial(opening, engines=replace(engines, device=device)) for device in how.devices]
        summary = run_cases(cases, _runner(ways_to_open or [opening], options, how, told), state, on_outcome=told.tell)
    told.conclude(summary)


def _check_devices(engines: EngineRequest, devices: Sequence[int]) -> None:
    """Check that the workers will run on GPUs that exist and compute the same.

    Raises:
        UsageError: The engines run on a CPU or on another GPU, or the GPUs do not exist or are unlike.
        BackendUnavailableError: There is no GPU at all.
    """
    if not devices:
        return
    if engines.device:
        raise UsageError(f"--device {engines.device} is one GPU and --devices are several; use one or the other")
    if engines.backend not in ("auto", *GPU_BACKENDS):
        raise UsageError(f"--devices are GPUs, and backend {engines.backend} runs on the CPU; use --workers instead")
    check_alike(devices)


def _plan(
    scans: tuple[Path, ...],
    output: Path | None,
    how: CohortOptions,
    extras: "tuple[ExtraResult, ...]",
    reading: ScanOptions,
) -> "tuple[list[Case], Path | None]":
    """Return the cases to run, and the folder for their journal; None for a few named scans, which need none."""
    from cascade_rt.run.cohort.cases import holds_many, of_shard, plan_cases
    from cascade_rt_cli.infer_output import warn_left_out

    folder = None
    if reading.series is not None and any(scan.is_dir() and holds_many(scan) for scan in scans):
        raise UsageError(
            "--series chooses within one study; leave it out to segment every series of a folder of studies"
        )
    if how != CohortOptions() or (len(scans) > 1 and output) or any(map(holds_many, scans)):
        folder = _cohort_folder(output)
    every_series = folder is not None and reading.series is None
    cases = plan_cases(scans, output, extras=extras, every_series=every_series, on_left_out=warn_left_out)
    return of_shard(cases, how.part), folder


def _cohort_folder(output: Path | None) -> Path:
    if output is None:
        raise UsageError("a cohort has many results; choose a folder for them with -o")
    if is_mask_name(output.name) and not output.is_dir():
        raise UsageError(f"{output}: is one file for several scans; choose a folder")
    return output


@contextmanager
def _journal(
    folder: Path, how: CohortOptions, settings: Mapping[str, Any], reading: ScanOptions, *, overwrite: bool
) -> Iterator["ResumeState"]:
    """Open the journal in the output folder, which is created if necessary."""
    from cascade_rt.run.cohort.journal import Journal
    from cascade_rt.run.cohort.results_table import check_results_path, results_path
    from cascade_rt.run.cohort.resume_state import ResumeState
    from cascade_rt_cli.infer_output import warn

    make_folder(folder)
    probe_folder(folder)
    table = results_path(folder, how.part)
    check_results_path(table)
    with Journal(folder, how.part) as journal:
        if not journal.is_locked:
            warn(f"{shown(folder)}: cannot be locked on this file system; make sure that no other run writes to it")
        remove_leftovers(table)
        yield ResumeState(
            folder,
            journal,
            settings,
            resume=how.resume,
            overwrite=overwrite,
            verify=how.verify,
            reading=reading,
        )


def _runner(
    ways_to_open: "Sequence[Callable[[], Cascade]]",
    options: "RunOptions",
    how: CohortOptions,
    told: "CohortOutput | ScanOutput",
) -> "Runner":
    """Return what computes the cases: this process, or workers, which take the ways to open the cascade in turn."""
    from cascade_rt.run.cohort.run import run_here
    from cascade_rt.run.cohort.workers import SECONDS_WITHOUT_PROGRESS, run_in_workers

    if how.workers is None:
        return run_here(ways_to_open[0], options, on_open=told.open, on_slices=told.advance)
    return run_in_workers(ways_to_open, how.workers, options, timeout=how.timeout or SECONDS_WITHOUT_PROGRESS)


def _settings(
    opened: "Bundle",
    engines: EngineRequest,
    options: "RunOptions",
    extras: "tuple[ExtraResult, ...]",
) -> dict[str, Any]:
    """Return what the results depend on, as in the journal."""
    return {
        "version": __version__,
        "bundle": opened.sha256,
        "backend": engines.backend,
        "precision": engines.precision,
        "extras": list(extras),
        "reading": asdict(options.reading),
        "search": asdict(options.search),
    }


def _print_plan(cases: int, opened: "Bundle", engines: EngineRequest, how: CohortOptions) -> None:
    where = f"in {how.workers} processes" if how.workers else "in this process"
    if how.devices:
        where += f" on GPU {' and '.join(map(str, how.devices))}"
    with_what = f"backend {engines.backend}, precision {engines.precision}"
    print_note(f"{cases} scans, bundle {opened.manifest.name}, {with_what}, {where}")
