"""Recognize masks and probabilities of earlier runs among the scans."""

import gzip
import json
import zlib
from pathlib import Path

from cascade_rt.common.hashing import record_file
from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file, read_plain_file
from cascade_rt.scans.names import result_stem, split_suffix
from cascade_rt.scans.volume import PROBABILITIES_MARK

LONGEST_REPORT = 64 << 20
"""Maximum bytes of a report that is read back."""
_NIFTI_HEADER = 540
"""Bytes of the longer of the two headers."""


def is_own_mask(path: Path) -> bool:
    """Return whether a file is a mask of ours, by the hash in the report of the same name.

    A file that was changed since, or whose report is gone, is treated as a scan: refusing a mask is better than
    omitting a scan.
    """
    report = path.with_name(f"{result_stem(path.name)}.json")
    try:
        values = json.loads(read_plain_file(report, LONGEST_REPORT, follow_links=True))
        written = values["output"] if "report_version" in values else None
        # Compare sizes first, so that most files that are not masks need not be read.
        if not isinstance(written, dict) or written["bytes"] != path.stat().st_size:
            return False
        return bool(written["sha256"] == record_file(path).sha256)
    except (OSError, NotAPlainFileError, ValueError, TypeError, LookupError, RecursionError):
        return False


def is_own_probabilities(path: Path) -> bool:
    """Return whether a NIfTI file holds probabilities of ours, by its name and the description in its header."""
    if not split_suffix(path.name)[0].endswith("_prob"):
        return False
    try:
        with open_plain_file(path, follow_links=True) as file, gzip.open(file) as content:
            return PROBABILITIES_MARK.encode() in content.read(_NIFTI_HEADER)
    except (OSError, NotAPlainFileError, EOFError, zlib.error):
        return False
