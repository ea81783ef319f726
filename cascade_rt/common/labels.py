"""Mask labels: 0 background, 1 pancreas, 2 tumor (part of the pancreas)."""

from collections.abc import Mapping
from typing import Literal, get_args

ORGAN_LABEL, TUMOR_LABEL = 1, 2

Target = Literal["organ", "tumor"]
TARGETS: tuple[Target, ...] = get_args(Target)
LOWEST_LABEL: Mapping[Target, int] = {"organ": ORGAN_LABEL, "tumor": TUMOR_LABEL}
"""A target consists of all voxels with at least this label: the tumor is part of the organ."""
