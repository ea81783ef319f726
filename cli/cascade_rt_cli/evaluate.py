"""`cascade-rt evaluate`: segment scans with known labels and score the masks."""

from pathlib import Path

import click

from cascade_rt.common.metrics import SAMPLE_SETS, SampleSet
from cascade_rt.engines import BACKENDS, Backend, BackendChoice, PrecisionChoice
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.options import (
    PATH,
    backend_option,
    bundle_option,
    overwrite_option,
    precision_option,
    scan_options,
)


@click.command()
@click.option("--images", type=PATH, required=True, metavar="DIR", help="Folder of the scans (.nii, .nii.gz).")
@click.option("--labels", type=PATH, required=True, metavar="DIR", help="Folder of their labels.")
@click.option(
    "--organ",
    type=click.IntRange(1, 255),
    multiple=True,
    metavar="VALUE",
    help="Number of the pancreas in the labels; may be given several times. All that is not named is background.",
)
@click.option(
    "--tumor", type=click.IntRange(1, 255), multiple=True, metavar="VALUE", help="Number of the tumor in the labels."
)
@click.option(
    "--slices",
    type=click.Choice(SAMPLE_SETS),
    default="positive",
    show_default=True,
    help="Slices and cases that the printed means are over: those with the target in the label, or all. "
    "The report holds both.",
)
@click.option(
    "--baseline", type=click.Choice(BACKENDS), help="Also run this engine in fp32 and print how far both agree."
)
@click.option("-o", "--output", type=PATH, metavar="JSON", help="Write everything to this file.")
@click.option("--csv", "table", type=PATH, metavar="CSV", help="Write a row for each case to this file.")
@scan_options
@bundle_option
@backend_option
@precision_option
@overwrite_option
def evaluate(
    images: Path,
    labels: Path,
    organ: tuple[int, ...],
    tumor: tuple[int, ...],
    slices: SampleSet,
    baseline: Backend | None,
    output: Path | None,
    table: Path | None,
    bundle: Path | None,
    backend: BackendChoice,
    precision: PrecisionChoice,
    overwrite: bool,
    reading: ScanOptions,
) -> None:
    """Segment scans whose true labels are known, and score the masks.

    A scan and its label have the same name; nnU-Net's _0000 behind the name of a scan is understood. Labels are 0
    (background), 1 (pancreas) and 2 (tumor), or what --organ and --tumor say. All labels are checked before the first
    scan is segmented.

    \b
    Example:
      cascade-rt evaluate --images imagesTs --labels labelsTs --bundle bundles/first -o report.json
      cascade-rt evaluate --images img --labels seg --organ 6
    """  # noqa: D301
    from cascade_rt.data.case_pairs import LabelValues, pair_cases
    from cascade_rt_cli.evaluate_cohort import Outputs, evaluate_cohort

    values = LabelValues(organ or LabelValues().organ, tumor) if organ or tumor else None
    outputs = Outputs(output, table, overwrite=overwrite)
    evaluate_cohort(
        pair_cases(images, labels, values),
        bundle,
        backend,
        precision,
        baseline,
        outputs,
        slices=slices,
        reading=reading,
    )
