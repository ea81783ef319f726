"""Do two results agree? `compare` measures it, and `Agreement.missed` judges it.

Exported graphs, engines, batches and masks are all compared here. What is not a number never passes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cascade_rt.common.labels import Target
from cascade_rt.common.metrics import Confusion, confusion, pool
from cascade_rt.common.tolerances import Limits


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far results agree with their references. Adding two instances pools them, as if they had been one result."""

    voxels: int = 0
    """Number of values compared, such as the voxels of a mask."""
    different: int = 0
    """Number of values that differ at all."""
    max_error: float = 0.0
    """Largest absolute difference; NaN if any difference is."""
    error_sum: float = 0.0
    """Sum of the absolute differences."""
    worst_slice: str = ""
    """The slice in which `max_error` occurs, if slices have names."""
    counts: Mapping[str, Confusion] = field(default_factory=dict)
    """The voxels of each mask, with the reference as the truth."""

    def __add__(self, other: "Agreement") -> "Agreement":
        # The position of the larger error, or of NaN; the first of equals.
        worse = (self, other)[int(np.argmax((self.max_error, other.max_error)))]
        masks = {**self.counts, **other.counts}
        return Agreement(
            voxels=self.voxels + other.voxels,
            different=self.different + other.different,
            max_error=worse.max_error,
            error_sum=self.error_sum + other.error_sum,
            worst_slice=worse.worst_slice or other.worst_slice,
            counts={name: pool(each.counts[name] for each in (self, other) if name in each.counts) for name in masks},
        )

    @property
    def mean_error(self) -> float:
        """Mean absolute difference; NaN if nothing was compared."""
        return self.error_sum / self.voxels if self.voxels else math.nan

    @property
    def per_100_000(self) -> float:
        """Differing values per 100,000; NaN if nothing was compared."""
        return 1e5 * self.different / self.voxels if self.voxels else math.nan

    @property
    def dice(self) -> dict[str, float | None]:
        """Dice of each mask; None if it is empty in both, where a Dice of 1 would say nothing."""
        return {name: each.dice if each.positive or each.found else None for name, each in self.counts.items()}

    def missed(self, limits: Limits) -> Literal["max_error", "mean_error", "least_dice"] | None:
        """Return the first limit that is missed, or None."""
        # Negated so that NaN misses them.
        if not self.max_error <= limits.max_error:
            return "max_error"
        if not self.mean_error <= limits.mean_error:
            return "mean_error"
        reached = all(dice >= limits.least_dice for dice in self.dice.values() if dice is not None)
        return None if reached else "least_dice"


def compare(
    reference: npt.NDArray[Any],
    candidate: npt.NDArray[Any],
    lowest: Mapping[Target, float] | Mapping[str, float] | None = None,
    *,
    slices: Sequence[str] = (),
) -> Agreement:
    """Compare a result, such as a probability map or a mask of labels, with its reference.

    Args:
        reference: The result to be reproduced.
        candidate: The result to judge.
        lowest: Masks to compare: for each, the lowest value that belongs to it, such as `LOWEST_LABEL`.
        slices: Names of the slices along the first axis.

    Raises:
        ValueError: The shapes differ.
    """
    if candidate.shape != reference.shape:
        raise ValueError(f"results must have equal shapes, got {candidate.shape} and {reference.shape}")
    with np.errstate(invalid="ignore"):
        # Labels are unsigned, which their differences must not be.
        errors = np.subtract(candidate, reference, dtype=np.result_type(candidate, reference, np.int8))
        np.abs(errors, out=errors)
        worst = slices[int(np.argmax(errors.reshape(len(slices), -1).max(axis=1)))] if slices else ""
        return Agreement(
            voxels=errors.size,
            different=int(np.count_nonzero(errors)),
            max_error=float(errors.max(initial=0)),
            error_sum=float(errors.sum(dtype=np.float64)),
            worst_slice=worst,
            counts={name: confusion(candidate >= least, reference >= least) for name, least in (lowest or {}).items()},
        )


def moved_boxes(reference: Mapping[int, object], candidate: Mapping[int, object]) -> list[int]:
    """Return the slices, in order, whose box differs or exists in only one of the two."""
    return sorted(index for index in {**reference, **candidate} if reference.get(index) != candidate.get(index))
