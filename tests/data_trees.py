"""Folders shaped like MSD Task07 and NIH Pancreas-CT, with scans of a few voxels."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.dicom_files import axial_slices, write_series
from tests.volume_files import nifti, save

Array = npt.NDArray[Any]

SHAPE = (6, 20, 24)
# [z, row, col] with 2.5, 0.8 and 0.7 mm, the first voxel where `axial_slices` puts it.
LPS_AFFINE = np.array([[-0.7, 0, 0, 30], [0, -0.8, 0, 20], [0, 0, 2.5, -400], [0, 0, 0, 1]])


def anatomy(seed: int = 0, *, tumor: bool = False) -> tuple[Array, Array]:
    """HU and label `[z, row, col]`: an organ of 100 HU off the middle, in a body that is nowhere like it."""
    random = np.random.default_rng(seed)
    hu = random.normal(-300, 250, SHAPE).clip(-1000, 1000)
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[0:3, 2:9, 3:11] = 1
    if tumor:
        label[1:3, 4:7, 5:8] = 2
    hu[label > 0] = random.normal(100, 10, np.count_nonzero(label))
    return (np.rint(hu / 2) * 2).astype(np.int16), label


def write_nifti(path: Path, array: Array, affine: Array = LPS_AFFINE) -> Path:
    """Write `[z, row, col]` of the canonical frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(path, nifti(array.T, affine))


def msd_tree(root: Path, numbers: Iterable[int] = (1, 4, 5), *, suffix: str = "", listed: bool = True) -> Path:
    """Scans and labels of some numbers; `suffix` is `_0000` in data sets of nnU-Net."""
    entries = []
    for number in numbers:
        hu, label = anatomy(number, tumor=True)
        name = f"pancreas_{number:03d}"
        write_nifti(root / "imagesTr" / f"{name}{suffix}.nii.gz", hu)
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", label)
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    if listed:
        (root / "dataset.json").write_text(json.dumps({"numTraining": 281, "training": entries}))
    return root


def nih_tree(root: Path, numbers: Iterable[int] = (1, 2, 3), *, flip: tuple[int, ...] = (1,)) -> tuple[Path, Path]:
    """DICOM series with shuffled names, nested as TCIA nests them, and labels flipped along some axes."""
    for number in numbers:
        hu, label = anatomy(number)
        case = root / "Pancreas-CT" / f"PANCREAS_{number:04d}"
        write_series(case / "11-24-2015-Pancreas" / "Pancreas-63502", axial_slices(hu), shuffled=True)
        write_nifti(root / "labels" / f"label{number:04d}.nii.gz", np.flip(label, flip))
    return root / "Pancreas-CT", root / "labels"
