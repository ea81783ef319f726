"""Count images among the scans of a cohort that are not read, so that nobody assumes they were."""

import contextlib
import re
from collections import Counter
from itertools import islice
from pathlib import Path

from cascade_rt.common.folders import FolderContent
from cascade_rt.errors import InputError
from cascade_rt.run.cohort.own_masks import is_own_mask
from cascade_rt.scans.dicom import is_dicom
from cascade_rt.scans.names import SEGMENTATION_SUFFIX, is_scan_name

OTHER_FORMATS = frozenset({".dcm", ".hdr", ".ima", ".img", ".mgh", ".mgz", ".mnc", ".zip"})
"""Suffixes of images in formats that are not read, of NIfTI in two files, and of archives that hold no CT series."""
_PACKED_OR_UNFINISHED = re.compile(r"\.(nii(\.gz)?|nrrd|nhdr|mha|mhd)[^a-z0-9].*", re.IGNORECASE)
_UNNAMED = re.compile(r"[^.]*|.*\.\d+")
"""Names without a suffix, or with a number in its place, as in most DICOM archives."""
_LOOKED_INTO = 3
"""Number of files of a folder that are opened to detect DICOM; if one is DICOM, the folder counts as DICOM."""


class LeftOut:
    """Counter of images in other formats."""

    def __init__(self) -> None:
        self._files: Counter[str] = Counter()
        self._dicom_folders = 0

    def add(self, content: FolderContent) -> None:
        """Count the images of one folder."""
        names = [name for name in content.files if not name.startswith(".")]
        endings = {name: ending for name in names if (ending := _other_ending(name)) is not None}
        self._files.update(ending for name, ending in endings.items() if not _is_own_segmentation(content.path / name))
        unnamed = (content.path / name for name in names if _UNNAMED.fullmatch(name))
        # A file that cannot be opened is not a scan of ours either.
        with contextlib.suppress(InputError):
            self._dicom_folders += any(is_dicom(path) for path in islice(unnamed, _LOOKED_INTO))

    def __str__(self) -> str:
        """Return the counts as one phrase, empty if there are none."""
        counts = [_plural(count, f"{ending} file") for ending, count in sorted(self._files.items())]
        counts += [_plural(self._dicom_folders, "DICOM folder")] if self._dicom_folders else []
        return ", ".join(counts)


def _is_own_segmentation(path: Path) -> bool:
    return path.name.lower().endswith(SEGMENTATION_SUFFIX) and is_own_mask(path)


def _other_ending(name: str) -> str | None:
    """Return the suffix of an image that is not read, in lower case; None for any other file."""
    lower = name.lower()
    if is_scan_name(name):
        return None
    packed = _PACKED_OR_UNFINISHED.search(lower)
    if packed is not None:
        return packed.group()
    return next((ending for ending in (*OTHER_FORMATS, SEGMENTATION_SUFFIX) if lower.endswith(ending)), None)


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
