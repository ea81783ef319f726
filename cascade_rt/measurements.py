"""What a person wants to know of a mask: volumes and lesions."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade_rt.labels import ORGAN_LABEL, TUMOR_LABEL


@dataclass(frozen=True, slots=True)
class Lesion:
    """One connected piece of tumour (voxels that share a face, an edge or a corner)."""

    volume_ml: float
    diameter_mm: float
    """Diameter of the ball of the same volume."""
    center_mm: tuple[float, float, float]
    """Centre of mass in the scan's world frame (right-anterior-superior, as NIfTI has it)."""
    slices: int
    """Slices it is seen in."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Volumes and lesions of a mask."""

    organ_ml: float
    """Pancreas and tumour together."""
    pancreas_ml: float
    """Pancreas without tumour: label 1."""
    tumor_ml: float
    """Tumour: label 2."""
    organ_slices: int
    tumor_slices: int
    lesions: tuple[Lesion, ...]
    """Largest first."""


def measure(mask: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], voxel_volume_ml: float) -> Measurements:
    """Measure a mask.

    Args:
        mask: `[z, row, col]`, labels 0, 1 and 2.
        affine: 4x4, from the index (z, row, col) to world millimetres.
        voxel_volume_ml: Volume of one voxel.
    """
    tumor = mask == TUMOR_LABEL
    tumor_ml = int(np.count_nonzero(tumor)) * voxel_volume_ml
    pancreas_ml = int(np.count_nonzero(mask == ORGAN_LABEL)) * voxel_volume_ml
    return Measurements(
        organ_ml=pancreas_ml + tumor_ml,
        pancreas_ml=pancreas_ml,
        tumor_ml=tumor_ml,
        organ_slices=int(np.count_nonzero(mask.any(axis=(1, 2)))),
        tumor_slices=int(np.count_nonzero(tumor.any(axis=(1, 2)))),
        lesions=_lesions(tumor, affine, voxel_volume_ml),
    )


def _lesions(
    tumor: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64], voxel_volume_ml: float
) -> tuple[Lesion, ...]:
    if not tumor.any():
        return ()
    from scipy import ndimage

    # Labelling only the tumour's own box is up to 40 times faster than the whole frame.
    (window,) = ndimage.find_objects(tumor.astype(np.uint8))
    components, _ = ndimage.label(tumor[window], structure=np.ones((3, 3, 3)))
    origin = np.array([side.start for side in window])
    lesions = []
    for number, piece in enumerate(ndimage.find_objects(components), start=1):
        index = np.argwhere(components[piece] == number) + origin + [side.start for side in piece]
        center = affine[:3, :3] @ index.mean(axis=0) + affine[:3, 3]
        volume_ml = len(index) * voxel_volume_ml
        lesions.append(
            Lesion(
                volume_ml=volume_ml,
                diameter_mm=float(np.cbrt(6000.0 * volume_ml / np.pi)),
                center_mm=(float(center[0]), float(center[1]), float(center[2])),
                slices=len(np.unique(index[:, 0])),
            )
        )
    return tuple(sorted(lesions, key=lambda lesion: lesion.volume_ml, reverse=True))
