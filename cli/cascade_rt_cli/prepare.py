"""`cascade-rt prepare`: convert a data set to a case store."""

from pathlib import Path

import click

from cascade_rt.data.names import DATASETS, FLIP_CHOICES, Dataset, FlipChoice
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.options import PATH, scan_options


@click.command()
@click.argument("data", type=PATH, required=False)
@click.option("-o", "--output", type=PATH, required=True, metavar="STORE", help="Folder of the case store.")
@click.option(
    "--dataset",
    type=click.Choice(DATASETS),
    required=True,
    help="msd: Task07_Pancreas, as downloaded or with the names of nnU-Net. nih: Pancreas-CT, DICOM or NIfTI. "
    "folder: scans and labels of your own.",
)
@click.option("--images", type=PATH, metavar="DIR", help="folder: where the scans are (.nii, .nii.gz).")
@click.option(
    "--labels", type=PATH, metavar="DIR", help="Folder of the labels; msd, nih: only where they are not in DATA."
)
@click.option(
    "--organ",
    type=click.IntRange(1, 255),
    multiple=True,
    metavar="VALUE",
    help="folder: number of the pancreas in the labels; may be given several times.  [default: 1]",
)
@click.option(
    "--tumor",
    type=click.IntRange(1, 255),
    multiple=True,
    metavar="VALUE",
    help="folder: number of the tumor in the labels.  [default: there are none]",
)
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
    help="Cases kept for the test.  [default: as in the paper, 65 of 281 or 20 of 82; of a folder, a fifth]",
)
@click.option(
    "--patients",
    metavar="REGEX",
    help="What in the beginning of a case's name is its patient; patients stay whole, and --test-cases counts them.",
)
@click.option(
    "--split",
    type=PATH,
    metavar="JSON",
    help='A split of your own, {"train": [names], "test": [names]}; nothing is drawn.',
)
@click.option("--verify", is_flag=True, help="Check the hashes of finished cases; convert damaged ones again.")
@scan_options
def prepare(
    data: Path | None,
    output: Path,
    dataset: Dataset,
    images: Path | None,
    labels: Path | None,
    organ: tuple[int, ...],
    tumor: tuple[int, ...],
    label_flip: FlipChoice,
    seed: int | None,
    test_cases: int | None,
    patients: str | None,
    split: Path | None,
    verify: bool,
    reading: ScanOptions,
) -> None:
    """Convert a data set into STORE, once, and split it by case into training and test.

    DATA is the folder of msd or nih; scans of your own are named with --images and --labels, a scan and its label by
    the same name. All cases are checked before the first is converted. Stopped and run again, it goes on where it was.
    The split is in STORE/split.json, and every later command reads it. A store takes 3 bytes a voxel, 0.8 MB a slice.

    \b
    Examples:
      cascade-rt prepare --dataset msd Task07_Pancreas -o stores/msd
      cascade-rt prepare --dataset nih Pancreas-CT --labels TCIA_pancreas_labels-02-05-2017 -o stores/nih
      cascade-rt prepare --dataset folder --images scans --labels labels --organ 1 --tumor 2 -o stores/own
      cascade-rt prepare --dataset folder --images img --labels seg --organ 6 --patients 'p\\d+' -o stores/btcv
    """  # noqa: D301
    from cascade_rt.data.prepare import SplitRequest
    from cascade_rt_cli.prepare_store import find_cases, prepare_store

    values = organ, tumor
    listing, test_share = find_cases(dataset, data, images, labels, values, label_flip, reading)
    wanted = SplitRequest(dataset, test_share, test_cases, seed, patients, split)
    folders = [folder for folder in (data, images, labels) if folder is not None]
    prepare_store(listing, output, wanted, verify=verify, folders=folders)
