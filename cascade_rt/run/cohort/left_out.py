"""Count images among the scans of a cohort that are not read, so that nobody assumes they were."""

import contextlib
import re
from collections import Counter
from itertools import islice

from cascade_rt.common.folders import FolderContent
from cascade_rt.errors import InputError
from cascade_rt.scans.dicom import is_dicom
from cascade_rt.scans.nifti import split_suffix

OTHER_FORMATS = frozenset({".dcm", ".hdr", ".ima", ".img", ".mgh", ".mgz", ".mha", ".mhd", ".mnc", ".nhdr", ".nrrd"})
"""Suffixes of images that are not NIfTI, or are NIfTI in two files."""
_PACKED_OR_UNFINISHED = re.compile(r"\.nii(\.gz)?[^a-z0-9].*", re.IGNORECASE)
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
        self._files.update(ending for name in names if (ending := _other_ending(name)) is not None)
        unnamed = (content.path / name for name in names if _UNNAMED.fullmatch(name))
        # A file that cannot be opened is not a scan of ours either.
        with contextlib.suppress(InputError):
            self._dicom_folders += any(is_dicom(path) for path in islice(unnamed, _LOOKED_INTO))

    def __str__(self) -> str:
        """Return the counts as one phrase, empty if there are none."""
        counts = [_plural(count, f"{ending} file") for ending, count in sorted(self._files.items())]
        counts += [_plural(self._dicom_folders, "DICOM folder")] if self._dicom_folders else []
        return ", ".join(counts)


def _other_ending(name: str) -> str | None:
    """Return the suffix of an image that is not read, in lower case; None for any other file."""
    lower = name.lower()
    if split_suffix(name)[1]:
        return None
    packed = _PACKED_OR_UNFINISHED.search(lower)
    if packed is not None:
        return packed.group()
    return next((ending for ending in OTHER_FORMATS if lower.endswith(ending)), None)


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
