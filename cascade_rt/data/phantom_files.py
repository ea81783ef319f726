"""Write a phantom as NIfTI files, like the export of a scanner."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from cascade_rt.common.atomic import write_bytes
from cascade_rt.data.phantom import Phantom


def write_phantom_files(phantom: Phantom, scan: Path, label: Path) -> None:
    """Write scan and label as `.nii.gz` in LPS, centred at the world origin. Existing files are replaced."""
    for array, path in ((phantom.hu, scan), (phantom.label, label)):
        # [z, row, col] is (superior, posterior, left). NIfTI stores the fastest axis first, in RAS world coordinates.
        image = nib.Nifti1Image(array.T, _affine(phantom))
        image.header.set_xyzt_units("mm")
        write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=1, mtime=0), overwrite=True)


def _affine(phantom: Phantom) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    z_mm, row_mm, col_mm = phantom.spacing_mm
    affine = np.diag([-col_mm, -row_mm, z_mm, 1.0])
    middle = (np.array(phantom.hu.shape[::-1]) - 1) / 2
    affine[:3, 3] = -affine[:3, :3] @ middle
    return affine
