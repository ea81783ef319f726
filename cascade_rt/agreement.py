"""How far two engines agree."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade_rt.engines.base import Array


@dataclass(frozen=True, slots=True)
class MaskAgreement:
    """Voxels on which two masks of the same scan differ."""

    voxels: int
    different: int

    @property
    def per_100_000(self) -> float:
        """Differing voxels in a hundred thousand."""
        return 1e5 * self.different / self.voxels

    def __add__(self, other: "MaskAgreement") -> "MaskAgreement":
        return MaskAgreement(self.voxels + other.voxels, self.different + other.different)


def mask_agreement(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> MaskAgreement:
    """Compare two label masks; ValueError where their shapes differ."""
    if first.shape != second.shape:
        raise ValueError(f"masks must have equal shapes, got {first.shape} and {second.shape}")
    return MaskAgreement(voxels=first.size, different=int(np.count_nonzero(first != second)))


def max_errors(outputs: Mapping[str, Array], reference: Mapping[str, Array]) -> dict[str, float]:
    """The largest absolute difference in each output of a stage; NaN where either holds one.

    Raises:
        ValueError: An output has another shape than its reference.
    """
    for name, expected in reference.items():
        if outputs[name].shape != expected.shape:
            raise ValueError(f"{name} must have the shape {expected.shape} of the reference, got {outputs[name].shape}")
    with np.errstate(invalid="ignore"):
        return {name: float(np.abs(outputs[name] - reference[name]).max()) for name in reference}
