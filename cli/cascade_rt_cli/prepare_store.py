"""Preparing a data set, with progress bars and a summary."""

from pathlib import Path

from cascade_rt.data import msd, nih
from cascade_rt.data.names import Dataset, FlipChoice
from cascade_rt.data.prepare import SplitRequest, prepare_cases
from cascade_rt.errors import UsageError
from cascade_rt_cli.console import print_rows, progress_bar, results_console


def prepare_store(
    dataset: Dataset,
    data: Path,
    labels: Path | None,
    label_flip: FlipChoice,
    store: Path,
    test_cases: int | None,
    seed: int | None,
    *,
    verify: bool,
) -> None:
    """List, check and convert the cases of a data set, and print what was done."""
    if dataset == "msd":
        if label_flip not in ("auto", "none"):
            raise UsageError("--label-flip is for nih; labels of msd lie as their headers say")
        listing, test_share = msd.find_msd_cases(data, labels), msd.TEST_SHARE
    else:
        listing, test_share = nih.find_nih_cases(data, labels, label_flip), nih.TEST_SHARE
    with progress_bar() as bars:
        checking = bars.add_task("checking", total=len(listing.cases))
        converting = bars.add_task("converting", total=len(listing.cases))
        done = prepare_cases(
            listing,
            store,
            SplitRequest(dataset, test_share, test_cases, seed),
            verify=verify,
            on_check=lambda _: bars.advance(checking),
            on_case=lambda _: bars.advance(converting),
        )
    console = results_console()
    rows = [
        ("store", str(store)),
        ("cases", f"{len(done.converted)} converted, {len(done.kept)} already there"),
        ("split", str(done.split)),
    ]
    if done.flips:
        flips = ", ".join(f"{flip} ({count})" for flip, count in done.flips.most_common())
        rows.append(("flips", f"labels turned along: {flips}"))
    print_rows(console, [*rows, *(("warning", warning) for warning in done.warnings)])
    console.print(f"next: cascade-rt train --dataset {dataset} {store} -o RUN", markup=False)
