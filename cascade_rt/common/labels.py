"""The labels of masks: 0 background, 1 pancreas, 2 tumor, which lies in the pancreas."""

from collections.abc import Mapping
from typing import Literal, get_args

ORGAN_LABEL, TUMOR_LABEL = 1, 2

Target = Literal["organ", "tumor"]
TARGETS: tuple[Target, ...] = get_args(Target)
LOWEST_LABEL: Mapping[Target, int] = {"organ": ORGAN_LABEL, "tumor": TUMOR_LABEL}
"""A target is all voxels of at least this label: the tumor belongs to the organ."""
