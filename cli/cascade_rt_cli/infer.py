"""`cascade-rt infer`: segment scans and write masks and reports."""

from pathlib import Path

import click

from cascade_rt.engines import BackendChoice, PrecisionChoice
from cascade_rt.errors import UsageError
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.options import (
    PATH,
    FiniteFloat,
    backend_option,
    bundle_option,
    overwrite_option,
    precision_option,
    scan_options,
    signature_option,
)
from cascade_rt_cli.output import log_format_option


@click.command()
@click.argument("scans", nargs=-1, required=True, type=PATH, metavar="SCAN|FOLDER|LIST.txt...")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="OUT",
    help="A mask file (.nii, .nii.gz) for one scan, or a folder. Default: the current folder.",
)
@click.option("--preview", is_flag=True, help="Also draw the most telling slice with outlines, <name>_seg.png.")
@bundle_option
@signature_option
@backend_option
@precision_option
@click.option(
    "--z-search",
    type=click.IntRange(min=1),
    default=1,
    metavar="K",
    help="Look for the pancreas in every K-th slice first, then only around those that hold it. May change the mask.",
)
@click.option(
    "--body-box", is_flag=True, help="Look for the pancreas in a box around the body only. May change the mask."
)
@overwrite_option
@scan_options
@click.option("--resume", is_flag=True, help="Go on where an earlier run into OUT ended; what is done is not repeated.")
@click.option(
    "--shard", metavar="I/N", help="Compute only part I, from 0, of N; the parts can run at once, on many machines."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="K",
    help="Compute in K processes, which may crash or hang without harm to the others. Default: in this one.",
)
@click.option(
    "--timeout",
    type=FiniteFloat(min=0, min_open=True),
    metavar="SECONDS",
    help="With --workers: give a scan up that makes no progress for so long. Default: 600.",
)
@log_format_option
def infer(
    scans: tuple[Path, ...],
    output: Path | None,
    preview: bool,
    bundle: Path | None,
    public_key: Path | None,
    backend: BackendChoice,
    precision: PrecisionChoice,
    z_search: int,
    body_box: bool,
    overwrite: bool,
    reading: ScanOptions,
    resume: bool,
    shard: str | None,
    workers: int | None,
    timeout: float | None,
) -> None:
    """Segment CT scans (.nii, .nii.gz).

    For each SCAN this writes a mask, <name>_seg.nii.gz, on the scan's own grid (0 background, 1 pancreas, 2 tumor),
    and a report, <name>_seg.json, with volumes, lesions, the time of each step and what computed them.

    \b
    Examples:
      cascade-rt infer scan.nii.gz --preview
      cascade-rt infer scans/*.nii.gz -o masks --bundle bundles/first

    Of a FOLDER all scans in it are taken, however deep; a LIST.txt has the path of a scan on each line, and comments on
    lines that begin with #. OUT then mirrors their folders, and OUT/journal.jsonl says what became of each scan. One
    bad scan does not stop the others: the command ends with 3 and names those that failed. Stopped, killed, or with new
    scans in the folder, it goes on with --resume.

    \b
    Examples:
      cascade-rt infer scans -o masks
      cascade-rt infer scans -o masks --resume --workers 2
      cascade-rt infer list.txt -o masks --log-format json

    \b
    A Slurm array of 16 jobs, each of which may be submitted again as it is:
      #SBATCH --array=0-15
      cascade-rt infer scans -o masks --resume --shard $SLURM_ARRAY_TASK_ID/16
    """  # noqa: D301
    from cascade_rt.run.cohort.cases import Shard, holds_many
    from cascade_rt.scans.search import SearchOptions

    search = SearchOptions(z_search, body_box)
    if reading.scattered and z_search > 1:
        raise UsageError("--z-search goes by neighbours of slices, and with --scattered there are none; leave it out")
    if timeout is not None and workers is None:
        raise UsageError("--timeout: nothing can end a scan that hangs in this very process; add --workers 1")
    if resume or shard or workers or (len(scans) > 1 and output) or any(map(holds_many, scans)):
        from cascade_rt_cli.infer_cohort import CohortOptions, infer_cohort

        how = CohortOptions(resume, overwrite, Shard.parse(shard) if shard else None, workers or 0, timeout)
        infer_cohort(
            scans, output, bundle, backend, precision, how, reading, search, public_key=public_key, pictures=preview
        )
        return
    from cascade_rt.run.inference import plan_jobs
    from cascade_rt_cli.infer_scans import infer_scans

    jobs = plan_jobs(scans, output, pictures=preview)
    infer_scans(jobs, bundle, backend, precision, reading, public_key=public_key, search=search, overwrite=overwrite)
