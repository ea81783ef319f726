"""The bytes of NIfTI masks."""

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from cascade_rt.scans.grids import SourceGrid
from cascade_rt.scans.mask_content import GZIP_BITS, Content, compressed, voxel_bytes


def nifti_content(slabs: npt.NDArray[np.uint8], grid: SourceGrid, *, zipped: bool) -> Content:
    """Yield the bytes of a NIfTI mask `[k, j, i]`: NIfTI-2 if the scan is, or if a side is too long."""
    plain = _plain_content(slabs, grid)
    return compressed(plain, GZIP_BITS) if zipped else plain


def _plain_content(slabs: npt.NDArray[np.uint8], grid: SourceGrid) -> Content:
    # The four zeros mean "no extensions".
    yield bytes(source_header(grid, np.uint8).binaryblock) + bytes(4)
    yield from voxel_bytes(slabs)


def source_header(grid: SourceGrid, dtype: npt.DTypeLike) -> Nifti1Header:
    """Return a header for an image on the input's grid: NIfTI-2 if the input is, or if a side is too long."""
    of_nifti1 = max(grid.shape) <= 32767 and grid.geometry["srow_x"].dtype.itemsize == 4
    header_class: type[Nifti1Header] = Nifti1Header if of_nifti1 else Nifti2Header
    header = header_class(endianness="<")
    header.set_data_shape(grid.shape)
    header.set_data_dtype(dtype)
    header.set_data_offset(header.single_vox_offset)
    header.set_slope_inter(1.0, 0.0)
    with np.errstate(all="ignore"):
        for name, value in grid.geometry.items():
            header[name] = value
    return header
