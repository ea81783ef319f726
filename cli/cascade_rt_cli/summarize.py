"""`cascade-rt summarize`: what became of the cases of a cohort, in words, as a table or as JSON."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascade_rt_cli.console import print_rows, results_console
from cascade_rt_cli.findings import volume_text
from cascade_rt_cli.messages import printable, shown
from cascade_rt_cli.options import PATH
from cascade_rt_cli.output import is_quiet

if TYPE_CHECKING:
    from cascade_rt.run.cohort.results_table import CaseRow

_MOST_NAMES = 5
"""Maximum number of case names shown for a status or code. The table has all of them."""
_HEADLINE = (
    ("with pancreas", {"ok", "no_tumor", "organ_only", "implausible_organ", "organ_touches_border"}),
    ("without", {"no_organ"}),
    ("with tumor", {"tumor_only"}),
    ("without tumor", {"no_tumor_only"}),
    ("failed", {"failed"}),
    ("unfinished", {"started", "interrupted"}),
    ("changed since", {"changed"}),
)
_VOLUMES = {"pancreas": "pancreas_ml", "tumor": "tumor_ml", "organ": "organ_ml"}
_VOLUME_NAMES = {"pancreas": "pancreas", "tumor": "tumor", "organ": "pancreas and tumor"}


@click.command()
@click.argument("folder", type=PATH, metavar="OUT")
@click.option(
    "-o", "--output", type=PATH, metavar="CSV", help="Write the table to this file. Default: results.csv in OUT."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="What is printed: counts and volumes to read, the rows of all cases, or both as JSON.",
)
def summarize(folder: Path, output: Path | None, form: str) -> None:
    """Summarize a cohort: what was found, volumes, warnings and errors.

    OUT is the output folder of `infer` over many scans. All shards are taken together, and OUT/results.csv is written
    with a row for each case: status, volumes in ml, lesions, warnings, error code, attempts and seconds. This also
    works while runs are in progress.

    \b
    Examples:
      cascade-rt summarize masks
      cascade-rt summarize masks -o results.csv --format json
    """  # noqa: D301
    from cascade_rt.run.cohort.results_table import read_results, results_csv, results_path, write_results

    table = output or results_path(folder)
    rows = read_results(folder)
    write_results(rows, table)
    if is_quiet():
        return
    if form == "csv":
        click.echo(results_csv(rows).replace("\r\n", "\n"), nl=False)
    elif form == "json":
        click.echo(json.dumps(_overview(rows), indent=2))
    else:
        _print_overview(folder, rows, table)


def headline(rows: Sequence["CaseRow"]) -> str:
    """Return a phrase that counts cases by what was found, such as "4 scans: 1 with pancreas, 3 without"."""
    counts = {name: sum(row.status in statuses for row in rows) for name, statuses in _HEADLINE}
    if counts["without"]:
        # Masks that are all empty must not read like results.
        parts = [f"{count} {name}" for name, count in counts.items() if count or name == "with pancreas"]
    else:
        parts = [f"{count} {name}" for name, count in counts.items() if count]
    return f"{len(rows)} scans" + (f": {', '.join(parts)}" if parts else "")


def status_rows(rows: Sequence["CaseRow"]) -> Iterator[tuple[str, str]]:
    """Yield a printed row for each status of finished cases, with their number."""
    from cascade_rt.run.cohort.results_table import ROW_SENTENCES

    groups = _grouped(rows, lambda row: (row.status,) if row.status != "failed" else ())
    order = [*ROW_SENTENCES]
    for status, names in sorted(groups.items(), key=lambda group: order.index(group[0]) if group[0] in order else -1):
        yield ROW_SENTENCES.get(status, status), str(len(names))


def _grouped(rows: Sequence["CaseRow"], keys: Callable[["CaseRow"], Sequence[str]]) -> dict[str, list[str]]:
    """Return the names of the cases with each key; the key of most cases first."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        for key in keys(row):
            groups.setdefault(key, []).append(row.case)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def errors_of(rows: Sequence["CaseRow"]) -> dict[str, list[str]]:
    """Return the names of the cases with each error code; the most frequent code first."""
    return _grouped(rows, lambda row: (row.error_code,) if row.error_code else ())


def warnings_of(rows: Sequence["CaseRow"]) -> dict[str, list[str]]:
    """Return the names of the cases with each warning code; the most frequent code first."""
    return _grouped(rows, lambda row: row.warnings)


def _print_overview(folder: Path, rows: Sequence["CaseRow"], table: Path) -> None:
    console = results_console()
    console.print(f"{printable(shown(folder))}: {headline(rows)}", style="bold")
    lines = [*status_rows(rows), *_volume_rows(rows)]
    lines += [("warning", f"{code}: {_some(names)}") for code, names in warnings_of(rows).items()]
    lines += [("error", f"{code}: {_some(names)}") for code, names in errors_of(rows).items()]
    print_rows(console, [*lines, ("table", shown(table))], indent=2)


def _volume_rows(rows: Sequence["CaseRow"]) -> Iterator[tuple[str, str]]:
    for name, volumes in _volumes(rows).items():
        if volumes["count"]:
            low, median, high = (volume_text(volumes[key]) for key in ("lower_quartile", "median", "upper_quartile"))
            yield _VOLUME_NAMES[name], f"median {median}, quartiles {low} and {high}, in {volumes['count']} scans"


def _volumes(rows: Sequence["CaseRow"]) -> dict[str, dict[str, Any]]:
    """Return count, median and quartiles of each volume over the cases in which it is not 0."""
    import numpy as np

    found: dict[str, dict[str, Any]] = {}
    for name, column in _VOLUMES.items():
        values = [value for row in rows if (value := getattr(row, column))]
        low, median, high = np.percentile(values, (25, 50, 75)).tolist() if values else (None, None, None)
        found[name] = {"count": len(values), "lower_quartile": low, "median": median, "upper_quartile": high}
    return found


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    shown_names = ", ".join(printable(name) for name in names[:_MOST_NAMES])
    return f"{len(names)} scans: {shown_names}" + (f" and {more} more" if more > 0 else "")


def _overview(rows: Sequence["CaseRow"]) -> Mapping[str, Any]:
    return {
        "cases": len(rows),
        "statuses": {status: len(names) for status, names in _grouped(rows, lambda row: (row.status,)).items()},
        "volumes_ml": _volumes(rows),
        "warnings": warnings_of(rows),
        "errors": errors_of(rows),
        "rows": [asdict(row) for row in rows],
    }
