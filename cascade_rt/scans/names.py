"""Which file names are scans and which are masks: the one place that knows their suffixes."""

NIFTI_SUFFIXES = (".nii.gz", ".nii")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
METAIMAGE_SUFFIXES = (".mha", ".mhd")
SCAN_SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES, *METAIMAGE_SUFFIXES)
SEGMENTATION_SUFFIX = ".seg.nrrd"
"""3D Slicer opens such a file as a segmentation, and any other .nrrd as a volume."""
MASK_SUFFIXES = (*NIFTI_SUFFIXES, SEGMENTATION_SUFFIX, ".nrrd", ".mha")
MASKS_IN_WORDS = ".nii.gz, .nii, .seg.nrrd, .nrrd or .mha"

_SUFFIXES = (SEGMENTATION_SUFFIX, *SCAN_SUFFIXES)
_MASK_SUFFIX_OF = {**dict.fromkeys(NRRD_SUFFIXES, SEGMENTATION_SUFFIX), **dict.fromkeys(METAIMAGE_SUFFIXES, ".mha")}


def split_suffix(path: str) -> tuple[str, str]:
    """Split a path before the suffix of a scan or mask, ignoring case. The second part is "" if there is none."""
    length = next((len(suffix) for suffix in _SUFFIXES if path.lower().endswith(suffix)), 0)
    return path[: len(path) - length], path[len(path) - length :]


def is_scan_name(name: str) -> bool:
    """Return whether a file is a scan by its name. Segmentations of 3D Slicer are not."""
    return split_suffix(name)[1].lower() in SCAN_SUFFIXES


def is_mask_name(name: str) -> bool:
    """Return whether a mask can be written under this name."""
    return split_suffix(name)[1].lower() in MASK_SUFFIXES


def mask_name(name: str, scan: str) -> str:
    """Return the file name of the mask of a case, in the format of its scan.

    Args:
        name: The name of the case.
        scan: The file name of its scan. The mask is `.nii.gz` unless the scan is NRRD or MetaImage.
    """
    suffix = _MASK_SUFFIX_OF.get(split_suffix(scan)[1].lower(), ".nii.gz")
    return f"{name}{suffix}" if suffix == SEGMENTATION_SUFFIX else f"{name}_seg{suffix}"


def masks_of(stem: str) -> tuple[str, ...]:
    """Return the names of all masks whose other results have this name without suffix: `result_stem` the other way."""
    return tuple(
        f"{stem.removesuffix('_seg')}{suffix}" if suffix == SEGMENTATION_SUFFIX else f"{stem}{suffix}"
        for suffix in MASK_SUFFIXES
        if suffix != SEGMENTATION_SUFFIX or stem.endswith("_seg")
    )


def result_stem(mask: str) -> str:
    """Return the name, without suffix, of the other results of a mask: `a_seg` for `a_seg.nii.gz` and `a.seg.nrrd`."""
    stem, suffix = split_suffix(mask)
    return f"{stem}_seg" if suffix.lower() == SEGMENTATION_SUFFIX else stem
