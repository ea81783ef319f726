"""Recognize masks of earlier runs among the scans."""

import json
from pathlib import Path

from cascade_rt.common.hashing import record_file
from cascade_rt.common.plain_file import NotAPlainFileError, read_plain_file
from cascade_rt.scans.names import result_stem

_LONGEST_REPORT = 64 << 20


def is_own_mask(path: Path) -> bool:
    """Return whether a file is a mask of ours, by the hash in the report of the same name.

    A file that was changed since, or whose report is gone, is treated as a scan: refusing a mask is better than
    omitting a scan.
    """
    report = path.with_name(f"{result_stem(path.name)}.json")
    try:
        values = json.loads(read_plain_file(report, _LONGEST_REPORT, follow_links=True))
        written = values["output"] if "report_version" in values else None
        # Compare sizes first, so that most files that are not masks need not be read.
        if not isinstance(written, dict) or written["bytes"] != path.stat().st_size:
            return False
        return bool(written["sha256"] == record_file(path).sha256)
    except (OSError, NotAPlainFileError, ValueError, TypeError, LookupError, RecursionError):
        return False
