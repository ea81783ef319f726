"""Write the metrics of a run as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from cascade_rt.common.atomic import write_bytes


def write_log(history: Sequence[Mapping[str, float | str]], path: Path) -> None:
    """Write the history of a run as CSV: one row per epoch, one column per metric that any epoch has.

    The whole file is rewritten and replaced atomically, so that it agrees with the checkpoint even after a run was
    stopped and resumed. If an epoch lacks a metric, the cell is empty.

    Raises:
        OutputError: The system refuses to write.
    """
    columns = list(dict.fromkeys(name for entry in history for name in entry))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    write_bytes(path, text.getvalue().encode(), overwrite=True)
