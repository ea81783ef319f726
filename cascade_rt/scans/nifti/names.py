"""How NIfTI files are named."""


def split_suffix(path: str) -> tuple[str, str]:
    """Split a path before its `.nii` or `.nii.gz`, in upper or lower case; the second part is empty without one."""
    length = next((len(suffix) for suffix in (".nii.gz", ".nii") if path.lower().endswith(suffix)), 0)
    return path[: len(path) - length], path[len(path) - length :]
