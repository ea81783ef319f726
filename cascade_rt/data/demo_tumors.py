"""The demonstration slices with synthetic tumors."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from cascade_rt.common.atomic import write_bytes
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.data.demo_patient import LABEL, READING, SCAN
from cascade_rt.data.synthetic_tumor import add_tumor
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import read_mask


def write_files_with_tumors(scan: Path, label: Path, seed: int) -> None:
    """Write the slices with one synthetic tumor in each, and their label: 1 pancreas, 2 tumor. Replaces existing files.

    Args:
        scan: Where the slices go, `.nii.gz`.
        label: Where the label goes, `.nii.gz`.
        seed: Seed of the tumors.
    """
    volume, organ = read_volume(SCAN, READING), read_mask(LABEL)
    voxels, labels = volume.voxels.copy(), organ.copy()
    random = np.random.default_rng(seed)
    for index in range(len(voxels)):
        one = slice(index, index + 1)
        grown = add_tumor(voxels[one], organ[one], volume.spacing_mm, TumorRecipe(), random)
        if grown is not None:
            voxels[one], labels[one] = grown
    for array, path in ((voxels, scan), (labels, label)):
        image = nib.Nifti1Image(volume.grid.from_canonical(array), volume.grid.affine)
        image.header.set_xyzt_units("mm")
        write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=1, mtime=0), overwrite=True)
