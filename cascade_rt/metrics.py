"""Dice, sensitivity and specificity of binary masks.

    Dice = 2 TP / (2 TP + FP + FN)      SEN = TP / (TP + FN)      SPE = TN / (TN + FP)       (Eq. 18 to 20)

Undefined cases: two empty masks agree, so their Dice is 1; an empty prediction of something, or the other way round,
has Dice 0; SEN without anything to find, and SPE without any background, are NaN and have to be left out of a mean.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How a prediction and the truth meet, in voxels. Adding two pools them."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where both masks are empty."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else 1.0

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); NaN where there is nothing to find."""
        positive = self.true_positive + self.false_negative
        return self.true_positive / positive if positive else float("nan")

    @property
    def specificity(self) -> float:
        """TN / (TN + FP); NaN where there is no background."""
        negative = self.true_negative + self.false_positive
        return self.true_negative / negative if negative else float("nan")


def confusion(prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Confusion:
    """Count how two binary masks of equal shape meet."""
    if prediction.shape != truth.shape:
        raise ValueError(f"masks must have equal shapes, got {prediction.shape} and {truth.shape}")
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    both = int(np.count_nonzero(np.logical_and(prediction, truth)))
    return Confusion(both, predicted - both, true - both, prediction.size - predicted - true + both)


def dice(prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Dice of two binary masks of equal shape; 1 where both are empty."""
    return confusion(prediction, truth).dice
