"""Measure a mask: volumes and lesions."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.pixel_runs import Peaks, find_runs
from cascade_rt.results.lesions import Lesion, measure_lesions


@dataclass(frozen=True, slots=True)
class Measurements:
    """Volumes and lesions of a mask."""

    organ_ml: float
    """Pancreas and tumor together."""
    pancreas_ml: float
    """Pancreas without tumor: label 1."""
    tumor_ml: float
    """Tumor: label 2."""
    organ_slices: int
    tumor_slices: int
    lesions: tuple[Lesion, ...]
    """Largest first."""


def measure(
    mask: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
    voxel_volume_ml: float,
    *,
    organ_sought: bool = True,
    peaks: Peaks | None = None,
    across_slices: bool = True,
) -> Measurements:
    """Measure a mask.

    Args:
        mask: `[z, row, col]`, labels 0, 1 and 2.
        affine: 4x4, from the index (z, row, col) to world mm.
        voxel_volume_ml: Volume of one voxel, ml.
        organ_sought: Whether label 1 was looked for, so that a lesion can be apart from it.
        peaks: The largest tumor probability in each run of the tumor, from which lesion scores are computed.
        across_slices: Whether adjacent slices are adjacent in the patient.
    """
    pancreas = find_runs(mask, lambda labels: labels == ORGAN_LABEL)
    tumor = find_runs(mask, lambda labels: labels == TUMOR_LABEL)
    pancreas_ml, tumor_ml = (int(runs.lengths.sum()) * voxel_volume_ml for runs in (pancreas, tumor))
    organ = pancreas if organ_sought else None
    lesions = measure_lesions(tumor, organ, affine, voxel_volume_ml, peaks=peaks, across_slices=across_slices)
    return Measurements(
        organ_ml=pancreas_ml + tumor_ml,
        pancreas_ml=pancreas_ml,
        tumor_ml=tumor_ml,
        organ_slices=len(np.union1d(pancreas.slices, tumor.slices)),
        tumor_slices=len(np.unique(tumor.slices)),
        lesions=lesions,
    )
