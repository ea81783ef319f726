"""Find NIfTI files by name."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def nifti_stem(name: str) -> str | None:
    """Return the name without .nii or .nii.gz, or None for other and hidden files, such as the `._` files of macOS."""
    if name.startswith("."):
        return None
    return next((name[: -len(end)] for end in (".nii.gz", ".nii") if name.lower().endswith(end)), None)


def nifti_by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Group the NIfTI files among some paths by stem. A compressed and an uncompressed file may share a stem.

    Paths are sorted. Anything with a NIfTI name except a folder is included, even a broken link, so that the reader
    reports the error.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(paths):
        stem = nifti_stem(path.name)
        if stem is not None and not path.is_dir():
            found[stem].append(path)
    return found
