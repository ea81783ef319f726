"""`cascade-rt report`: make the page of a result later."""

from pathlib import Path

import click

from cascade_rt.common.outputs import check_files
from cascade_rt.errors import InputError, UsageError
from cascade_rt.scans.names import masks_of
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.console import print_rows, results_console
from cascade_rt_cli.messages import shown
from cascade_rt_cli.options import PATH, overwrite_option, scan_options
from cascade_rt_cli.output import is_json, log_format_option, print_event


@click.command()
@click.argument("report_file", type=PATH, metavar="MASK.json")
@click.option("--scan", type=PATH, required=True, metavar="SCAN", help="The scan that was segmented.")
@click.option("--mask", type=PATH, metavar="MASK", help="The mask. Default: beside the report, with its name.")
@click.option(
    "-o", "--output", type=PATH, metavar="PAGE.html", help="The page. Default: beside the report, with its name."
)
@overwrite_option
@scan_options
@log_format_option
def report(
    report_file: Path, scan: Path, mask: Path | None, output: Path | None, overwrite: bool, reading: ScanOptions
) -> None:
    """Write the page of a result: its numbers and a viewer of the slices, in one HTML file that needs no network.

    The page is the one that infer --report writes. It is made from the report of an earlier run, its mask and its scan,
    which must be the very files that the report names by their hashes. Give the options with which infer read the scan,
    such as --assume-hu. The page holds voxels of the scan: treat it like the scan.

    \b
    Example:
      cascade-rt report masks/scan_seg.json --scan scans/scan.nii.gz
    """  # noqa: D301
    from cascade_rt.results.reopening import reopen
    from cascade_rt.results.report_page.page import save_page

    if output is not None and output.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"{output}: browsers open pages by their suffix; choose a name that ends in .html")
    found = mask or _mask_beside(report_file)
    page = output or report_file.with_suffix(".html")
    check_files([page], [report_file, found, scan], overwrite=overwrite)
    save_page(reopen(report_file, found, scan, reading), page, overwrite=overwrite)
    size = page.stat().st_size
    if is_json():
        print_event("page", path=shown(page), bytes=size)
    else:
        print_rows(results_console(), [("page", f"{shown(page)} ({size / 1e6:.1f} MB)")])


def _mask_beside(report_file: Path) -> Path:
    """Return the mask that has the name of a report."""
    candidates = [report_file.with_name(name) for name in masks_of(report_file.stem)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    # What is missing may be the report itself, or the mask was passed in its place.
    from cascade_rt.results.reopening import read_report

    read_report(report_file)
    raise InputError(f"{candidates[0]}: does not exist; name the mask of this report with `mask`")
