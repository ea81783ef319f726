"""NIfTI files of a folder, by what their names say."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def nifti_stem(name: str) -> str | None:
    """The name without .nii or .nii.gz; none for other files, and for hidden ones such as the `._` files of macOS."""
    if name.startswith("."):
        return None
    return next((name[: -len(end)] for end in (".nii.gz", ".nii") if name.lower().endswith(end)), None)


def nifti_by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """The NIfTI files among some paths, in order; two files share a stem where one is compressed and one is not.

    What only has the name of one, such as a link to what is not there, is among them, so that whoever reads it tells.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(paths):
        stem = nifti_stem(path.name)
        if stem is not None and not path.is_dir():
            found[stem].append(path)
    return found
