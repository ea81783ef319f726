"""Compare the masks of an arm with those of the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade_rt.common.labels import LOWEST_LABEL, TARGETS, Target
from cascade_rt.common.metrics import confusion, pool
from cascade_rt.measuring.agreement import MaskAgreement, mask_agreement
from cascade_rt.scans.volume import read_mask


@dataclass(frozen=True, slots=True)
class MaskComparison:
    """Voxel-wise comparison of the masks of all scans with those of the reference."""

    agreement: MaskAgreement
    dice: Mapping[Target, float]
    """Dice over the voxels of all scans together; 1 if both are empty."""
    found: Mapping[Target, int]
    """Number of voxels found by the reference. If there are none, a Dice of 1 means little."""


def compare_masks(masks: Sequence[Path], references: Sequence[Path]) -> MaskComparison:
    """Compare mask files, scan by scan."""
    agreement, counts = MaskAgreement(0, 0), {target: pool([]) for target in TARGETS}
    for path, reference_path in zip(masks, references, strict=True):
        mask, reference = read_mask(path), read_mask(reference_path)
        agreement += mask_agreement(mask, reference)
        for target in TARGETS:
            found, expected = (np.greater_equal(each, LOWEST_LABEL[target]) for each in (mask, reference))
            counts[target] += confusion(found, expected)
    return MaskComparison(
        agreement,
        dice={target: counts[target].dice for target in TARGETS},
        found={target: counts[target].positive for target in TARGETS},
    )
