"""What the scripts of all peers have in common: the same few lines that each of their users would write."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage

from cascade_rt.bundles.bundle import Bundle, read_bundle
from cascade_rt.config import CropConfig
from cascade_rt.errors import UsageError

THRESHOLD = 0.5
LPS = axcodes2ornt(("L", "P", "S"))
PANCREAS, TUMOR = 1, 2
Place = tuple[slice, slice]


def open_bundle(path: Path) -> Bundle:
    """Read a bundle; UsageError where the scripts do not compute what it is for."""
    bundle = read_bundle(path)
    config = bundle.manifest.config
    if config.stage1 == "none" or config.target != "tumor" or not config.saliency or config.crop.empty_policy != "skip":
        raise UsageError(
            f"{path}: the peers only compute the whole cascade with saliency, skipping slices without pancreas"
        )
    return bundle


def to_slices(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """From the axes of the file to `[z, row, col]`, toward superior, posterior and left: a view."""
    turned: npt.NDArray[Any] = apply_orientation(array, ornt_transform(io_orientation(affine), LPS)).T
    return turned


def to_file(mask: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """From `[z, row, col]` back to the axes of the file: a view."""
    turned: npt.NDArray[np.uint8] = apply_orientation(mask.T, ornt_transform(LPS, io_orientation(affine)))
    return turned


def save_mask(mask: npt.NDArray[np.uint8], image: Any, path: Path) -> None:
    """Write a mask `[z, row, col]` on the grid of the image, over one that is there."""
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    nib.save(nib.Nifti1Image(to_file(mask, image.affine), image.affine, header), path)


def check_sides(slices: npt.NDArray[Any], config: CropConfig) -> None:
    """Refuse slices that would have to be padded, which the scripts leave out."""
    rows, cols = slices.shape[1:]
    if rows % config.grid or cols % config.grid or min(rows, cols) < config.min_side:
        raise UsageError(f"the peers need slices whose sides are multiples of {config.grid}, got {rows} x {cols}")


def find_crop(prob: npt.NDArray[np.float32], config: CropConfig) -> Place | None:
    """Where stage 2 looks: the pancreas with a margin, on the grids of the config; None without pancreas."""
    found = prob >= config.threshold
    if not found.any():
        return None
    rows, cols = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return _side(rows, len(prob), config), _side(cols, prob.shape[1], config)


def _side(found: npt.NDArray[np.intp], length: int, config: CropConfig) -> slice:
    first, end = max(0, int(found[0]) - config.margin), min(length, int(found[-1]) + 1 + config.margin)
    step = config.corner_grid
    first, end = first // step * step, -(-end // step) * step
    side = max(config.min_side, -(-(end - first) // config.grid) * config.grid)
    start = max(0, min(first - -(-((side - (end - first)) // 2) // step) * step, length - side))
    return slice(start, start + side)


def write_lesions(mask: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], path: Path) -> None:
    """Label the lesions in the whole mask and write their volumes as JSON beside the mask."""
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    labels, count = ndimage.label(mask == TUMOR, structure=np.ones((3, 3, 3)))
    volumes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel_ml
    report = {
        "pancreas_ml": float((mask == PANCREAS).sum() * voxel_ml),
        "lesions_ml": sorted((float(volume) for volume in volumes), reverse=True),
    }
    path.with_suffix(".json").write_text(json.dumps(report), encoding="utf-8")
