"""Names of NIfTI files."""


def split_suffix(path: str) -> tuple[str, str]:
    """Split a path before its `.nii` or `.nii.gz` suffix, ignoring case. The second part is "" if there is none."""
    length = next((len(suffix) for suffix in (".nii.gz", ".nii") if path.lower().endswith(suffix)), 0)
    return path[: len(path) - length], path[len(path) - length :]
