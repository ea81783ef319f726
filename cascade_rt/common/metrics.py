"""Dice, sensitivity and specificity of binary masks.

    Dice = 2 TP / (2 TP + FP + FN)      SEN = TP / (TP + FN)      SPE = TN / (TN + FP)       (Eq. 18 to 20)

Edge cases: two empty masks agree, so their Dice is 1. If exactly one mask is empty, Dice is 0. SEN without positives
and SPE without negatives in the truth are NaN and must be left out of means.
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
"""Which slices or cases are averaged: those whose ground truth contains the target, or all."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Confusion counts of a prediction against the ground truth, in voxels. Adding two instances pools them."""

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
        """TP + FN: positive voxels in the truth."""
        return self.true_positive + self.false_negative

    @property
    def found(self) -> int:
        """TP + FP: predicted voxels."""
        return self.true_positive + self.false_positive

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 if both masks are empty."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else 1.0

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); NaN if the truth has no positives."""
        return self.true_positive / self.positive if self.positive else math.nan

    @property
    def specificity(self) -> float:
        """TN / (TN + FP); NaN if the truth has no background."""
        negative = self.true_negative + self.false_positive
        return self.true_negative / negative if negative else math.nan


def confusion(prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Confusion:
    """Count TP, FP, FN and TN of two binary masks of equal shape."""
    if prediction.shape != truth.shape:
        raise ValueError(f"masks must have equal shapes, got {prediction.shape} and {truth.shape}")
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    both = int(np.count_nonzero(np.logical_and(prediction, truth)))
    return Confusion(both, predicted - both, true - both, prediction.size - predicted - true + both)


def dice(prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Return the Dice coefficient of two binary masks of equal shape; 1 if both are empty."""
    return confusion(prediction, truth).dice


@dataclass(frozen=True, slots=True)
class Average:
    """Mean and standard deviation of the defined values."""

    mean: float
    """NaN if there are no values."""
    deviation: float
    """Sample standard deviation (divisor n - 1); NaN for fewer than two values."""
    count: int
    """Number of values averaged."""
    undefined: int
    """Number of NaN values left out."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The three metrics, each averaged over slices or cases."""

    dice: Average
    sensitivity: Average
    specificity: Average
    both_empty: int
    """Slices or cases where truth and prediction are both empty; each counts as Dice 1."""


def average(values: Iterable[float]) -> Average:
    """Average the values that are not NaN, and count those that are NaN."""
    given = list(values)
    defined = [value for value in given if not math.isnan(value)]
    return Average(
        mean=float(np.mean(defined)) if defined else math.nan,
        deviation=float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan,
        count=len(defined),
        undefined=len(given) - len(defined),
    )


def average_scores(samples: Sequence[Confusion], chosen: SampleSet) -> Scores:
    """Average Dice, SEN and SPE over slices or cases with equal weights."""
    over = [sample for sample in samples if chosen == "all" or sample.positive]
    return Scores(
        dice=average(sample.dice for sample in over),
        sensitivity=average(sample.sensitivity for sample in over),
        specificity=average(sample.specificity for sample in over),
        both_empty=sum(sample.positive == sample.found == 0 for sample in over),
    )


def pool(samples: Iterable[Confusion]) -> Confusion:
    """Sum the counts of slices or cases, as if they were one image."""
    return sum(samples, start=Confusion(0, 0, 0, 0))
