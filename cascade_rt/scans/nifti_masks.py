"""The bytes of NIfTI masks and probabilities."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from cascade_rt.scans.grids import SourceGrid
from cascade_rt.scans.mask_content import GZIP_BITS, Content, compressed, voxel_bytes


def nifti_content(volumes: Sequence[npt.NDArray[np.uint8]], header: Nifti1Header, *, zipped: bool) -> Content:
    """Yield the bytes of an image of one or several volumes `[k, j, i]`, one after the other."""
    plain = _plain_content(volumes, header)
    return compressed(plain, GZIP_BITS) if zipped else plain


def _plain_content(volumes: Sequence[npt.NDArray[np.uint8]], header: Nifti1Header) -> Content:
    # The four zeros mean "no extensions".
    yield bytes(header.binaryblock) + bytes(4)
    for slabs in volumes:
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
