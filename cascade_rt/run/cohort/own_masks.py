"""Masks of earlier runs that lie among the scans."""

import json
from pathlib import Path

from cascade_rt.common.hashing import record_file
from cascade_rt.common.plain_file import NotAPlainFileError, read_plain_file
from cascade_rt.scans.nifti import split_suffix

_LONGEST_REPORT = 64 << 20


def is_own_mask(path: Path) -> bool:
    """Whether a NIfTI file is a mask that we have written: a report of the same name says so, by its hash.

    A file that was changed since, or whose report is gone, is taken for a scan: it is better to refuse a mask than to
    leave out a scan.
    """
    report = path.with_name(f"{split_suffix(path.name)[0]}.json")
    try:
        values = json.loads(read_plain_file(report, _LONGEST_REPORT, follow_links=True))
        written = values["output"] if "report_version" in values else None
        # Most files that are no masks need not be read.
        if not isinstance(written, dict) or written["bytes"] != path.stat().st_size:
            return False
        return bool(written["sha256"] == record_file(path).sha256)
    except (OSError, NotAPlainFileError, ValueError, TypeError, LookupError, RecursionError):
        return False
