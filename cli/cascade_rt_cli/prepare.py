"""`cascade-rt prepare`: convert a data set to a case store."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cascade_rt.data.names import DATASETS, FLIP_CHOICES, Dataset, FlipChoice
from cascade_rt.errors import UsageError
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.console import print_rows, progress_bar, results_console
from cascade_rt_cli.messages import shown, shown_errors, shown_message, typed
from cascade_rt_cli.options import PATH, scan_options
from cascade_rt_cli.output import print_note

if TYPE_CHECKING:
    from cascade_rt.data.prepare import Listing, Preparation, SplitRequest


@click.command()
@click.argument("data", type=PATH, required=False)
@click.option("-o", "--output", type=PATH, required=True, metavar="STORE", help="Folder of the case store.")
@click.option(
    "--dataset",
    type=click.Choice(DATASETS),
    required=True,
    help="msd: Task07_Pancreas, as downloaded or with nnU-Net names. nih: Pancreas-CT, DICOM or NIfTI. folder: "
    "your own scans and labels.",
)
@click.option("--images", type=PATH, metavar="DIR", help="folder: where the scans are.")
@click.option(
    "--labels", type=PATH, metavar="DIR", help="Folder of the labels; msd, nih: only if they are not in DATA."
)
@click.option(
    "--organ",
    type=click.IntRange(1, 255),
    multiple=True,
    metavar="VALUE",
    help="folder: label value of the pancreas; may be given several times.  [default: 1]",
)
@click.option(
    "--tumor",
    type=click.IntRange(1, 255),
    multiple=True,
    metavar="VALUE",
    help="folder: label value of the tumor.  [default: none]",
)
@click.option(
    "--label-flip",
    type=click.Choice(FLIP_CHOICES),
    default="auto",
    show_default=True,
    help="nih: axes along which to flip the labels. auto: so that outlines follow edges.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the split.  [default: 0]")
@click.option(
    "--test-cases",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of test cases.  [default: as in the paper, 65 of 281 or 20 of 82; for folder, a fifth]",
)
@click.option(
    "--patients",
    metavar="REGEX",
    help="Start of a case name that identifies the patient; patients are not split, and --test-cases counts them.",
)
@click.option(
    "--split",
    type=PATH,
    metavar="JSON",
    help='Use this split, {"train": [names], "test": [names]}, instead of drawing one.',
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

    DATA is the folder of msd or nih; pass your own scans with --images and --labels, where a scan and its label have
    the same name. All cases are checked before the first is converted. If stopped, it continues when run again. The
    split is in STORE/split.json, and every later command reads it. A store takes 3 bytes per voxel, 0.8 MB per slice.

    \b
    Examples:
      cascade-rt prepare --dataset msd Task07_Pancreas -o stores/msd
      cascade-rt prepare --dataset nih Pancreas-CT --labels TCIA_pancreas_labels-02-05-2017 -o stores/nih
      cascade-rt prepare --dataset folder --images scans --labels labels --organ 1 --tumor 2 -o stores/own
      cascade-rt prepare --dataset folder --images img --labels seg --organ 6 --patients 'p\\d+' -o stores/btcv
    """  # noqa: D301
    from cascade_rt.data.prepare import SplitRequest

    values = organ, tumor
    listing, test_share = _find_cases(dataset, data, images, labels, values, label_flip, reading)
    files = [path for case in listing.cases for path in case.files.values()]
    with shown_errors(files):
        request = SplitRequest(dataset, test_share, test_cases, seed, patients, split)
        done = _prepare(listing, output, request, verify=verify)
    named = [*files, *filter(None, (data, images, labels))]
    _print_summary(done, dataset, output, (shown_message(warning, named) for warning in done.warnings))


def _find_cases(
    dataset: Dataset,
    data: Path | None,
    images: Path | None,
    labels: Path | None,
    values: tuple[tuple[int, ...], tuple[int, ...]],
    label_flip: FlipChoice,
    reading: ScanOptions,
) -> "tuple[Listing, float]":
    """List the cases of a data set. Returns them and the default test share.

    Raises:
        UsageError: An option is missing, or is for another data set.
        InputError: There are no cases.
    """
    from cascade_rt.data import msd, nih
    from cascade_rt.data.case_pairs import LabelValues
    from cascade_rt.data.folder import TEST_SHARE, find_folder_cases

    if dataset == "folder":
        if images is None or labels is None or data is not None:
            raise UsageError("--dataset folder takes no DATA; pass the scans and labels with --images and --labels")
        organ, tumor = values
        meaning = LabelValues(organ or LabelValues().organ, tumor)
        return find_folder_cases(images, labels, meaning, reading), TEST_SHARE
    if data is None:
        raise UsageError(f"DATA is missing; run: cascade-rt prepare --dataset {dataset} DATA -o STORE")
    if images is not None or any(values):
        raise UsageError(f"--images, --organ and --tumor are for folder, not {dataset}")
    if dataset == "nih":
        return nih.find_nih_cases(data, labels, label_flip, reading), nih.TEST_SHARE
    if label_flip not in ("auto", "none"):
        raise UsageError("--label-flip is for nih; omit it, because msd labels are oriented by their headers")
    return msd.find_msd_cases(data, labels, reading), msd.TEST_SHARE


def _prepare(listing: "Listing", store: Path, request: "SplitRequest", *, verify: bool) -> "Preparation":
    from cascade_rt.data.prepare import prepare_cases

    print_note(f"preparing {len(listing.cases)} cases of {request.dataset} into {shown(store)}")
    with progress_bar() as bars:
        checking = bars.add_task("checking", total=len(listing.cases))
        converting = bars.add_task("converting", total=len(listing.cases))
        return prepare_cases(
            listing,
            store,
            request,
            verify=verify,
            on_check=lambda _: bars.advance(checking),
            on_case=lambda _: bars.advance(converting),
        )


def _print_summary(done: "Preparation", dataset: Dataset, store: Path, warnings: Iterable[str]) -> None:
    console = results_console()
    rows = [
        ("store", shown(store)),
        ("cases", f"{len(done.converted)} converted, {len(done.kept)} already there"),
        ("split", str(done.split)),
    ]
    if done.flips:
        flips = ", ".join(f"{flip} ({count})" for flip, count in done.flips.most_common())
        rows.append(("flips", f"labels flipped along: {flips}"))
    print_rows(console, [*rows, *(("warning", warning) for warning in warnings)])
    console.print(f"next: cascade-rt train --dataset {dataset} {typed(store, 'STORE')} -o RUN")
