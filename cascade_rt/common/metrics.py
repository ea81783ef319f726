"""Dice, sensitivity and specificity of binary masks.

    Dice = 2 TP / (2 TP + FP + FN)      SEN = TP / (TP + FN)      SPE = TN / (TN + FP)       (Eq. 18 to 20)

Undefined cases: two empty masks agree, so their Dice is 1; an empty prediction of something, or the other way round,
has Dice 0; SEN without anything to find, and SPE without any background, are NaN and have to be left out of a mean.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

SampleSet = Literal["positive", "all"]
SAMPLE_SETS: tuple[SampleSet, ...] = get_args(SampleSet)
"""Which slices or cases a mean is over: those that hold the target in the truth, or all."""


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
    def positive(self) -> int:
        """TP + FN: what there is to find."""
        return self.true_positive + self.false_negative

    @property
    def found(self) -> int:
        """TP + FP: what was predicted."""
        return self.true_positive + self.false_positive

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where both masks are empty."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else 1.0

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); NaN where there is nothing to find."""
        return self.true_positive / self.positive if self.positive else math.nan

    @property
    def specificity(self) -> float:
        """TN / (TN + FP); NaN where there is no background."""
        negative = self.true_negative + self.false_positive
        return self.true_negative / negative if negative else math.nan


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


@dataclass(frozen=True, slots=True)
class Average:
    """Mean and spread of the values that are defined."""

    mean: float
    """NaN without any value."""
    deviation: float
    """Standard deviation of the sample (divisor n - 1); NaN with fewer than two values."""
    count: int
    """Values that the mean is over."""
    undefined: int
    """NaN values that were left out."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The three metrics, each averaged over slices or over cases."""

    dice: Average
    sensitivity: Average
    specificity: Average
    both_empty: int
    """Slices or cases with nothing in the truth and nothing predicted; each counts as Dice 1."""


def average(values: Iterable[float]) -> Average:
    """Average the values that are not NaN, and count those that are."""
    given = list(values)
    defined = [value for value in given if not math.isnan(value)]
    return Average(
        mean=float(np.mean(defined)) if defined else math.nan,
        deviation=float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan,
        count=len(defined),
        undefined=len(given) - len(defined),
    )


def average_scores(samples: Sequence[Confusion], chosen: SampleSet) -> Scores:
    """Average Dice, SEN and SPE over slices or cases, each of the same weight."""
    over = [sample for sample in samples if chosen == "all" or sample.positive]
    return Scores(
        dice=average(sample.dice for sample in over),
        sensitivity=average(sample.sensitivity for sample in over),
        specificity=average(sample.specificity for sample in over),
        both_empty=sum(sample.positive == sample.found == 0 for sample in over),
    )


def pool(samples: Iterable[Confusion]) -> Confusion:
    """Add up the counts of slices or cases, as if they were one image."""
    return sum(samples, start=Confusion(0, 0, 0, 0))
