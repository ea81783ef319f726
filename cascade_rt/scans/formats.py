"""Which reader the name of a scan or label file gets, and how a mask is written under its name.

The modules of the formats are imported when a file is named like theirs.
"""

import os

import numpy as np
import numpy.typing as npt

from cascade_rt.scans.grids import SourceGrid
from cascade_rt.scans.mask_content import Content
from cascade_rt.scans.names import METAIMAGE_SUFFIXES, NRRD_SUFFIXES, SEGMENTATION_SUFFIX, split_suffix
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.nifti.stream import NiftiStream
from cascade_rt.scans.nifti.voxel_stream import VoxelStream

_NRRD = (SEGMENTATION_SUFFIX, *NRRD_SUFFIXES)


def open_stream(path: str | os.PathLike[str], options: ScanOptions) -> VoxelStream:
    """Open a file by the format that its suffix names: NRRD, MetaImage, and otherwise NIfTI. Raises like the stream."""
    suffix = split_suffix(os.fspath(path))[1].lower()
    if suffix in _NRRD:
        from cascade_rt.scans.nrrd import NrrdStream

        return NrrdStream(path, options)
    if suffix in METAIMAGE_SUFFIXES:
        from cascade_rt.scans.metaimage import MetaImageStream

        return MetaImageStream(path, options)
    return NiftiStream(path, options)


def mask_content(slabs: npt.NDArray[np.uint8], grid: SourceGrid, suffix: str) -> Content:
    """Return the bytes of a mask file.

    Args:
        slabs: The mask `[k, j, i]` on the grid of the scan.
        grid: That grid.
        suffix: One of `MASK_SUFFIXES`.
    """
    if suffix in _NRRD:
        from cascade_rt.scans.nrrd import nrrd_content

        return nrrd_content(slabs, grid)
    if suffix in METAIMAGE_SUFFIXES:
        from cascade_rt.scans.metaimage import metaimage_content

        return metaimage_content(slabs, grid)
    from cascade_rt.scans.nifti_masks import nifti_content, source_header

    return nifti_content([slabs], source_header(grid, np.uint8), zipped=suffix == ".nii.gz")
