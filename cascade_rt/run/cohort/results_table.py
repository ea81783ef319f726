"""The table of a cohort: one row for each case, from the journals and the reports.

    OUT/results.csv               after a run over all cases
    OUT/results.<i>-of-<n>.csv    after shard i of n

A row has what `infer` measured, as in the report. It is taken only from results that are as they were recorded, by the
rule with which `--resume` skips a case; otherwise the status is "changed". A table contains names of cases, numbers and
codes, but no error messages, no paths and nothing from the header of a scan.

The files follow RFC 4180 and are safe in a spreadsheet and on a terminal. Texts that a spreadsheet could take for a
formula begin with an apostrophe. So do those that begin with an apostrophe themselves: removing one always gives the
original. Control characters and undecodable bytes are written as Python's escapes, so that a row is always one line.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.hashing import is_unchanged
from cascade_rt.common.outputs import check_file, write_error
from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file, read_plain_file
from cascade_rt.common.shown_paths import plain_text
from cascade_rt.errors import CascadeError, OutputExistsError, UsageError
from cascade_rt.results.segmentation import STATUS_SENTENCES
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.cases import Shard
from cascade_rt.run.cohort.journal import Entry, find_journals, name_of_part, newest_entries
from cascade_rt.run.cohort.own_masks import LONGEST_REPORT
from cascade_rt.scans.names import SCAN_SUFFIXES

ROW_SENTENCES: Mapping[str, str] = {
    **{str(status): sentence for status, sentence in STATUS_SENTENCES.items()},
    "changed": "the result was changed or removed since",
    "started": "started, not finished",
    "interrupted": "interrupted",
    "failed": "failed",
}
"""What the statuses of rows mean: those of reports first."""
_FORMULA_STARTS = frozenset("=+-@＝＋－＠'")  # noqa: RUF001  full-width forms, which some spreadsheets take as well
_FIRST_COLUMNS = b"case,status,"


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One row of the table. Values that were not measured, or not looked for, are None."""

    case: str
    """The name in the journal, relative to the output folder."""
    status: str
    """The status of the report if the case is done and its results are unchanged; otherwise "changed", or the newest
    status in the journal: "failed", "started" or "interrupted"."""
    pancreas_ml: float | None = None
    tumor_ml: float | None = None
    organ_ml: float | None = None
    """Pancreas and tumor together."""
    lesions: int | None = None
    largest_lesion_mm: float | None = None
    """Diameter of a sphere with the volume of the largest lesion."""
    slices_with_organ: int | None = None
    warnings: tuple[str, ...] = ()
    """Warning codes, each once."""
    error_code: str | None = None
    attempts: int = 1
    seconds: float | None = None
    """Wall-clock seconds from the scan's turn to its result."""


COLUMNS = tuple(column.name for column in fields(CaseRow))


def results_path(folder: Path, shard: Shard | None = None) -> Path:
    """Return the path of the table in an output folder."""
    return folder / name_of_part("results", ".csv", shard)


def read_results(
    folder: Path, shard: Shard | None = None, failures: Mapping[str, CascadeError] | None = None
) -> list[CaseRow]:
    """Read the rows of a cohort. Takes no locks, so that it also works while runs are in progress.

    Args:
        folder: The output folder.
        shard: Leave out cases of other shards; None for all cases of all runs.
        failures: The errors of the run that has just ended, by case name. Some are in no journal, such as those of
            scans whose results exist but are not ours; those that no run has begun get a row all the same.

    Returns:
        The rows, sorted by case name.

    Raises:
        UsageError: The folder has no journal.
        OutputError: A journal is damaged (`E_JOURNAL`) or cannot be read.
    """
    if not find_journals(folder):
        raise UsageError(f"{folder}: has no journal; pass the output folder of a run over many scans")
    failed = failures or {}
    entries = newest_entries(folder)
    rows = [CaseRow(name, "failed", error_code=error.code) for name, error in failed.items() if name not in entries]
    for name, entry in entries.items():
        # Refused cases belong to every shard.
        if shard is None or shard.has(name) or name in failed:
            rows.append(_row(folder, entry))
    return sorted(rows, key=lambda row: row.case)


def write_results(rows: Iterable[CaseRow], path: Path) -> None:
    """Write the table atomically, replacing an earlier one. Raises like `check_results_path` and `write_bytes`."""
    check_results_path(path)
    write_bytes(path, results_csv(rows).encode(), overwrite=True)


def check_results_path(path: Path) -> None:
    """Check that a table can be written to a path without replacing anything but an earlier table.

    Raises:
        OutputExistsError: The file exists and is no table of results.
        OutputError: The path is a folder, its folder does not exist, or the file cannot be read.
    """
    check_file(path, overwrite=True)
    try:
        with open_plain_file(path, follow_links=True) as file:
            start = file.read(len(_FIRST_COLUMNS))
    except FileNotFoundError:
        return
    except NotAPlainFileError as error:
        raise OutputExistsError(f"{path}: {error}; choose another `output`") from error
    except OSError as error:
        raise write_error(path, error) from error
    if start not in {b"", _FIRST_COLUMNS}:
        raise OutputExistsError(f"{path}: exists and is no table of results; move it away, or choose another `output`")


def results_csv(rows: Iterable[CaseRow]) -> str:
    """Return the table as text: a header and one line for each row, after RFC 4180."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    table.writerows([_cell(getattr(row, column)) for column in COLUMNS] for row in rows)
    return text.getvalue()


def _cell(value: float | str | Sequence[str] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return str(value)
    return _safe_text(value if isinstance(value, str) else " ".join(value))


def _safe_text(text: str) -> str:
    """Escape control characters, and mark a text that a spreadsheet could take for a formula."""
    escaped = "".join(
        letter if plain_text(letter) == letter else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
    return f"'{escaped}" if escaped[:1] in _FORMULA_STARTS else escaped


def _row(folder: Path, entry: Entry) -> CaseRow:
    if entry.status != "done":
        return CaseRow(entry.case, entry.status, error_code=entry.code, attempts=entry.attempt)
    content = _unchanged_report(folder, entry)
    if content is None:
        return CaseRow(entry.case, "changed", error_code="E_CHANGED", attempts=entry.attempt)
    try:
        return CaseRow(entry.case, attempts=entry.attempt, **_measured(json.loads(content)))
    except (ValueError, TypeError, LookupError, RecursionError):
        # A report of a version with other keys: what is known of it is in the journal.
        return CaseRow(entry.case, entry.found or "done", attempts=entry.attempt)


def _unchanged_report(folder: Path, entry: Entry) -> bytes | None:
    """Return the report of a case that is done, or None if its report or its mask is not what was recorded."""
    outputs, stamps = entry.outputs or {}, entry.output_stamps or {}
    try:
        case = _recorded_case(folder, entry.case, outputs)
        mask, report = (path.relative_to(folder).as_posix() for path in (case.mask, case.report))
        content = read_plain_file(case.report, LONGEST_REPORT, follow_links=True)
    except (OSError, ValueError):
        # ValueError: not a plain file, or the journal names a case outside its folder.
        return None
    is_ours = hashlib.sha256(content).hexdigest() == outputs.get(report)
    return content if is_ours and is_unchanged(case.mask, outputs.get(mask), stamps.get(mask)) else None


def _recorded_case(folder: Path, name: str, outputs: Mapping[str, str]) -> Case:
    """Return the case whose mask is among the outputs: the format of a mask is that of its scan, which no entry names.

    Raises:
        ValueError: The journal names a case outside its folder.
    """
    cases = [Case.in_folder(Path(f"scan{suffix}"), folder, name) for suffix in SCAN_SUFFIXES]
    return next((case for case in cases if case.mask.relative_to(folder).as_posix() in outputs), cases[0])


def _measured(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that are in the report."""
    volumes, lesions = report["volumes_ml"], report["lesions"]
    return {
        "status": report["status"],
        "pancreas_ml": _number(volumes["pancreas"]),
        "tumor_ml": _number(volumes["tumor"]),
        "organ_ml": _number(volumes["organ"]),
        "lesions": None if volumes["tumor"] is None else len(lesions),
        "largest_lesion_mm": _number(lesions[0]["diameter_mm"]) if lesions else None,
        "slices_with_organ": report["slices"]["with_organ"],
        "warnings": tuple(dict.fromkeys(str(warning["code"]) for warning in report["warnings"])),
        "seconds": _number(report["wall_s"]),
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
