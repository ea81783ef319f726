"""`cascade-rt prepare`: a data set in, a case store out."""

from pathlib import Path

import click

from cascade_rt.data.names import DATASETS, FLIP_CHOICES, Dataset, FlipChoice
from cascade_rt_cli.options import PATH


@click.command()
@click.argument("data", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="STORE", help="Folder of the case store.")
@click.option(
    "--dataset",
    type=click.Choice(DATASETS),
    required=True,
    help="msd: Task07_Pancreas, as downloaded or with the names of nnU-Net. nih: Pancreas-CT, DICOM or NIfTI.",
)
@click.option("--labels", type=PATH, metavar="DIR", help="Folder of the labels, where they are not in DATA.")
@click.option(
    "--label-flip",
    type=click.Choice(FLIP_CHOICES),
    default="auto",
    show_default=True,
    help="nih: along which axes labels are turned round. auto: so that outlines run along edges.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the split.  [default: 0]")
@click.option(
    "--test-cases",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cases kept for the test.  [default: as in the paper, 65 of 281 or 20 of 82]",
)
@click.option("--verify", is_flag=True, help="Check the hashes of finished cases; convert damaged ones again.")
def prepare(
    data: Path,
    output: Path,
    dataset: Dataset,
    labels: Path | None,
    label_flip: FlipChoice,
    seed: int | None,
    test_cases: int | None,
    verify: bool,
) -> None:
    """Convert a data set into STORE, once, and split it by case into training and test.

    All cases are checked before the first is converted. Stopped and run again, it goes on where it was. The split is in
    STORE/split.json, and every later command reads it. A store takes 3 bytes a voxel, 0.8 MB a slice.

    \b
    Examples:
      cascade-rt prepare --dataset msd Task07_Pancreas -o stores/msd
      cascade-rt prepare --dataset nih Pancreas-CT --labels TCIA_pancreas_labels-02-05-2017 -o stores/nih
    """  # noqa: D301
    from cascade_rt_cli.prepare_store import prepare_store

    prepare_store(dataset, data, labels, label_flip, output, test_cases, seed, verify=verify)
