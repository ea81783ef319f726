"""The numbers of a run as a table that any program reads."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from cascade_rt.common.atomic import write_bytes


def write_log(history: Sequence[Mapping[str, float | str]], path: Path) -> None:
    """Write the history of a run as CSV: a line for each epoch, a column for each number that any of them has.

    The whole file is written anew and replaced in one step, so it says what the checkpoint says, also after a run was
    stopped and resumed. Where an epoch lacks a number its cell is empty.

    Raises:
        OutputError: The system refuses to write.
    """
    columns = list(dict.fromkeys(name for entry in history for name in entry))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    write_bytes(path, text.getvalue().encode(), overwrite=True)
