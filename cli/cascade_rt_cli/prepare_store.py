"""Prepare a data set, with progress bars and a summary."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cascade_rt.data import msd, nih
from cascade_rt.data.case_pairs import LabelValues
from cascade_rt.data.folder import TEST_SHARE, find_folder_cases
from cascade_rt.data.names import Dataset, FlipChoice
from cascade_rt.data.prepare import Listing, SplitRequest, prepare_cases
from cascade_rt.errors import UsageError
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.console import print_rows, progress_bar, results_console, shown, shown_errors, shown_message, typed
from cascade_rt_cli.verbosity import print_note


def find_cases(
    dataset: Dataset,
    data: Path | None,
    images: Path | None,
    labels: Path | None,
    values: tuple[tuple[int, ...], tuple[int, ...]],
    label_flip: FlipChoice,
    reading: ScanOptions,
) -> tuple[Listing, float]:
    """List the cases of a data set. Returns them and the default test share.

    Raises:
        UsageError: An option is missing, or is for another data set.
        InputError: There are no cases.
    """
    if dataset == "folder":
        if images is None or labels is None or data is not None:
            raise UsageError("name the scans with --images and their labels with --labels: a folder has no DATA")
        organ, tumor = values
        meaning = LabelValues(organ or LabelValues().organ, tumor)
        return find_folder_cases(images, labels, meaning, reading), TEST_SHARE
    if data is None:
        raise UsageError(f"name the folder of the data set: cascade-rt prepare --dataset {dataset} DATA -o STORE")
    if images is not None or any(values):
        raise UsageError(f"--images, --organ and --tumor are for folder, not {dataset}")
    if dataset == "nih":
        return nih.find_nih_cases(data, labels, label_flip, reading), nih.TEST_SHARE
    if label_flip not in ("auto", "none"):
        raise UsageError("--label-flip is for nih; labels of msd lie as their headers say")
    return msd.find_msd_cases(data, labels, reading), msd.TEST_SHARE


def prepare_store(
    listing: Listing, store: Path, request: SplitRequest, *, verify: bool, folders: Iterable[Path]
) -> None:
    """Check and convert the cases of a data set, and print a summary.

    Args:
        listing: The cases.
        store: Folder of the case store.
        request: How to split the cases.
        verify: Whether to check finished cases.
        folders: Folders of the cases. Paths below them are printed as the last part only.
    """
    files = [path for case in listing.cases for path in case.files.values()]
    with shown_errors(files):
        _prepare_and_print(listing, store, request, verify, [*files, *folders])


def _prepare_and_print(
    listing: Listing, store: Path, request: SplitRequest, verify: bool, paths: Sequence[Path]
) -> None:
    print_note(f"preparing {len(listing.cases)} cases of {request.dataset} into {shown(store)}")
    with progress_bar() as bars:
        checking = bars.add_task("checking", total=len(listing.cases))
        converting = bars.add_task("converting", total=len(listing.cases))
        done = prepare_cases(
            listing,
            store,
            request,
            verify=verify,
            on_check=lambda _: bars.advance(checking),
            on_case=lambda _: bars.advance(converting),
        )
    console = results_console()
    rows = [
        ("store", shown(store)),
        ("cases", f"{len(done.converted)} converted, {len(done.kept)} already there"),
        ("split", str(done.split)),
    ]
    if done.flips:
        flips = ", ".join(f"{flip} ({count})" for flip, count in done.flips.most_common())
        rows.append(("flips", f"labels turned along: {flips}"))
    print_rows(console, [*rows, *(("warning", shown_message(warning, paths)) for warning in done.warnings)])
    console.print(f"next: cascade-rt train --dataset {request.dataset} {typed(store, 'STORE')} -o RUN")
