"""What only whole scans show: components in 3D, and how far the surfaces of two masks lie apart.

Distances are those of MONAI, in mm. The surface of a mask is its outermost voxels. HD95 is the larger of two 95th
percentiles: of the distances from the found surface to the true one, and the other way round. The surface Dice is the
share of the voxels of both surfaces that lie within the tolerance of the other one.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.patients.cases import Mask
from cascade_rt.common.packages import pip_install
from cascade_rt.errors import UsageError

TOLERANCE_MM = 2.0
_NEIGHBOURS = np.ones((3, 3, 3))
"""Voxels that share a face, an edge or a corner are of one component, as lesions are counted in reports."""


@dataclass(frozen=True, slots=True)
class SurfaceScores:
    """How far the surfaces of two masks lie apart."""

    hd95_mm: float
    """NaN where either mask is empty."""
    dice: float
    """Surface Dice; 0 where one mask is empty, NaN where both are."""


def box_around(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around a mask; empty slices where the mask is empty."""
    box = []
    for axis in range(mask.ndim):
        present = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(present[0]), int(present[-1]) + 1) if len(present) else slice(0, 0))
    return tuple(box)


def label_components(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """Number the components of a mask `[z, row, col]`, and count them."""
    from scipy import ndimage

    numbers, count = ndimage.label(mask, structure=_NEIGHBOURS)
    return numbers, int(count)


def largest_component(mask: Mask) -> tuple[Mask, int]:
    """Keep only the largest 3D component of a mask `[z, row, col]`, and count all of them."""
    box = box_around(mask)
    numbers, count = label_components(mask[box])
    if count < 2:
        return mask, count
    largest = np.zeros_like(mask)
    largest[box] = numbers == 1 + int(np.argmax(np.bincount(numbers.ravel())[1:]))
    return largest, count


def surface_scores(
    found: Mask, truth: Mask, spacing_mm: tuple[float, float, float], tolerance_mm: float = TOLERANCE_MM
) -> SurfaceScores:
    """Compare the surfaces of two masks `[z, row, col]`, whose voxels lie `spacing_mm` apart along z, row and col.

    Raises:
        UsageError: MONAI is not installed.
    """
    if not (found.any() and truth.any()):
        return SurfaceScores(math.nan, 0.0 if found.any() or truth.any() else math.nan)
    try:
        import torch
        from monai.metrics.hausdorff_distance import compute_hausdorff_distance
        from monai.metrics.surface_dice import compute_surface_dice
    except ImportError as error:
        if error.name not in ("monai", "torch"):
            raise
        raise UsageError(
            f"surfaces need a package that is not installed ({error.name}); run: {pip_install('comparators')}"
        ) from error
    box = box_around(found | truth)
    # A frame of background, so that what touches the box has a surface there too.
    found_box, true_box = (
        torch.from_numpy(np.pad(mask[box], 1).astype(np.float32))[None, None] for mask in (found, truth)
    )
    spacing = list(spacing_mm)
    with warnings.catch_warnings():
        # MONAI calls itself with an argument that it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        hd95 = compute_hausdorff_distance(found_box, true_box, include_background=True, percentile=95, spacing=spacing)
        dice = compute_surface_dice(found_box, true_box, [tolerance_mm], include_background=True, spacing=spacing)
    return SurfaceScores(float(hd95), float(dice))
