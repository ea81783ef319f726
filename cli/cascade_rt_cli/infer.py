"""`cascade-rt infer`: scans in, masks and reports out."""

from pathlib import Path

import click

from cascade_rt.engines import BackendChoice, PrecisionChoice
from cascade_rt.nifti.options import ScanOptions
from cascade_rt_cli.options import (
    PATH,
    backend_option,
    bundle_option,
    overwrite_option,
    precision_option,
    scan_options,
    signature_option,
)


@click.command()
@click.argument("scans", nargs=-1, required=True, type=PATH, metavar="SCAN...")
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
) -> None:
    """Segment CT scans (.nii, .nii.gz).

    For each SCAN this writes a mask, <name>_seg.nii.gz, on the scan's own grid (0 background, 1 pancreas, 2 tumour),
    and a report, <name>_seg.json, with volumes, lesions, the time of each step and what computed them.

    \b
    Examples:
      cascade-rt infer scan.nii.gz --preview
      cascade-rt infer scans/*.nii.gz -o masks --bundle bundles/first
    """  # noqa: D301
    from cascade_rt.inference import plan_jobs
    from cascade_rt.search import SearchOptions
    from cascade_rt_cli.infer_scans import infer_scans

    jobs = plan_jobs(scans, output, pictures=preview)
    search = SearchOptions(z_search, body_box)
    infer_scans(jobs, bundle, backend, precision, reading, public_key=public_key, search=search, overwrite=overwrite)
