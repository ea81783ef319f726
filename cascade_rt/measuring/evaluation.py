"""Evaluate a cascade on scans with true labels of pancreas and tumor.

Dice, SEN and SPE of two targets, the organ (label > 0) and the tumor (label 2), in three aggregations:

    per slice       mean over slices, each the full frame and of equal weight; the protocol of the paper
    per case        mean over scans, each a whole volume
    pooled          from the voxels of all scans, as if they were one

The means are over the slices or cases that contain the target (`positive`), as in the paper, or over `all` of them,
which also reveals false positives. In the latter, an empty mask with empty truth has Dice 1, and such samples are
counted. SEN is undefined if the target is absent; such samples are left out of the mean and counted.

Only one scan at a time is in memory; only its counts are kept.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.comparison import Agreement, compare
from cascade_rt.common.labels import LOWEST_LABEL, TARGETS, TUMOR_LABEL, Target
from cascade_rt.common.metrics import SAMPLE_SETS, Confusion, SampleSet, Scores, average_scores, confusion, pool
from cascade_rt.data.case_pairs import CasePair, Cohort, read_truth
from cascade_rt.errors import CascadeError
from cascade_rt.measuring.paired_difference import PairedDifference, paired_difference
from cascade_rt.models.crop import Box
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import Volume

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CropCoverage:
    """How much of the true tumor lies inside the crops of stage 2, which cannot find any outside."""

    voxels: int
    """Number of true tumor voxels."""
    inside: int
    """Number of true tumor voxels inside the box of their slice."""
    slices: int
    """Number of slices with true tumor."""
    slices_outside: int
    """Number of slices with true tumor, none of it inside a box."""

    def __add__(self, other: "CropCoverage") -> "CropCoverage":
        return CropCoverage(
            self.voxels + other.voxels,
            self.inside + other.inside,
            self.slices + other.slices,
            self.slices_outside + other.slices_outside,
        )

    @property
    def recall(self) -> float:
        """Fraction of the true tumor voxels inside the boxes; NaN without tumor."""
        return self.inside / self.voxels if self.voxels else math.nan


@dataclass(frozen=True, slots=True)
class BaselineCase:
    """The result of the baseline engine on the same scan."""

    counts: Mapping[Target, Confusion]
    """Counts against the truth, over the whole scan."""
    agreement: Agreement
    """Agreement between the masks of both engines."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The result of one scan."""

    name: str
    status: str
    voxel_ml: float
    seconds: float
    """Time of the cascade, without reading the files."""
    slices_without_organ: int
    """Number of slices in which stage 1 found nothing (see `Segmentation`)."""
    warnings: tuple[str, ...]
    """What is doubtful about the scan, its result and its label file."""
    slices: Mapping[Target, tuple[Confusion, ...]]
    """Counts of each slice."""
    crop: CropCoverage
    baseline: BaselineCase | None = None

    def counts(self, target: Target) -> Confusion:
        """Return the counts over the whole scan."""
        return pool(self.slices[target])


@dataclass(frozen=True, slots=True)
class TargetScores:
    """Dice, SEN and SPE of one target in all aggregations."""

    slices: Mapping[SampleSet, Scores]
    cases: Mapping[SampleSet, Scores]
    pooled: Confusion
    slices_missed: int
    """Number of slices with the target in which none of its voxels was found."""


@dataclass(frozen=True, slots=True)
class TumorDetection:
    """Tumor detection per case."""

    tumor_cases: int
    """Number of cases with tumor."""
    detected: int
    """Number of cases with tumor in which at least one of its voxels was found."""
    free_cases: int
    """Number of cases without tumor."""
    false_alarms: int
    """Number of cases without tumor in which tumor was found."""
    false_ml: float
    """Total volume of tumor found in cases without tumor."""


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """Comparison of the engine with the baseline engine on the same scans."""

    dice: Mapping[Target, PairedDifference]
    """Dice per case, engine minus baseline, over cases that contain the target."""
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluation of a cohort."""

    cases: tuple[CaseResult, ...]
    failures: Mapping[str, str]
    """The error message of each failed case."""
    tumor_in_labels: bool
    """Whether the labels mark tumors. If not, tumors cannot be evaluated."""
    organ_sought: bool
    """Whether the bundle looks for the organ. If not, the organ cannot be evaluated."""
    provenance: Mapping[str, Any]
    """Bundle, engine and versions, as in `Segmentation`."""
    baseline_engine: Mapping[str, Any] | None = None
    """The engine of the baseline; None without a baseline."""
    tumor_sought: bool = True
    """Whether the bundle looks for tumors. If not, tumors cannot be evaluated."""
    failed_files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """The files of each failed case, which its error message may name."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all cases, each preceded by the case name."""
        return tuple(f"{case.name}: {warning}" for case in self.cases for warning in case.warnings)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that are in the labels and that the bundle looks for."""
        known = {"organ": self.organ_sought, "tumor": self.tumor_in_labels and self.tumor_sought}
        return tuple(target for target in TARGETS if known[target])

    def scores(self, target: Target) -> TargetScores:
        """Return Dice, SEN and SPE of a target."""
        slices = [counts for case in self.cases for counts in case.slices[target]]
        cases = [case.counts(target) for case in self.cases]
        return TargetScores(
            slices={chosen: average_scores(slices, chosen) for chosen in SAMPLE_SETS},
            cases={chosen: average_scores(cases, chosen) for chosen in SAMPLE_SETS},
            pooled=pool(cases),
            slices_missed=sum(counts.positive > 0 and counts.true_positive == 0 for counts in slices),
        )

    def detection(self) -> TumorDetection:
        """Return the number of cases in which a tumor was found, correctly or falsely."""
        tumors = [(case.counts("tumor"), case.voxel_ml) for case in self.cases]
        with_tumor = [counts for counts, _ in tumors if counts.positive]
        false_ml = [counts.found * voxel_ml for counts, voxel_ml in tumors if not counts.positive]
        return TumorDetection(
            tumor_cases=len(with_tumor),
            detected=sum(counts.true_positive > 0 for counts in with_tumor),
            free_cases=len(false_ml),
            false_alarms=sum(volume > 0 for volume in false_ml),
            false_ml=sum(false_ml),
        )

    def crop(self) -> CropCoverage:
        """Return how much of the true tumors lies inside the crops of stage 2."""
        return sum((case.crop for case in self.cases), start=CropCoverage(0, 0, 0, 0))

    def comparison(self) -> BaselineComparison | None:
        """Compare the engine with the baseline. Returns None if no baseline was run."""
        compared = {case.name: (case, case.baseline) for case in self.cases if case.baseline is not None}
        if not compared:
            return None
        dice = {}
        for target in self.targets:
            with_target = {name: both for name, both in compared.items() if both[0].counts(target).positive}
            dice[target] = paired_difference(
                {name: case.counts(target).dice for name, (case, _) in with_target.items()},
                {name: baseline.counts[target].dice for name, (_, baseline) in with_target.items()},
            )
        agreement = sum((baseline.agreement for _, baseline in compared.values()), start=Agreement())
        return BaselineComparison(dice, agreement)


def evaluate(
    cohort: Cohort,
    cascade: Cascade,
    baseline: Cascade | None = None,
    *,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
    on_open: Callable[[CasePair, Volume], None] = lambda _pair, _volume: None,
    on_slices: Callable[[int], None] = lambda _: None,
    on_case: Callable[[CasePair], None] = lambda _: None,
) -> Evaluation:
    """Segment each scan of a cohort and compare it with its true labels. A failed case does not stop the others.

    Args:
        cohort: Pairs that have been checked (see `check_pairs`).
        cascade: The cascade to evaluate.
        baseline: The same bundle on another engine for comparison; it also runs on each scan.
        reading: Facts about the scans that the user supplies because the files do not state them.
        on_open: Called with each scan once it is read.
        on_slices: Called with the number of slices just finished, by the cascade or by the baseline.
        on_case: Called after each case, whether it failed or not.
    """
    cases, failures = [], {}
    for pair in cohort.pairs:
        try:
            cases.append(_evaluate_case(pair, cascade, baseline, reading, on_open, on_slices))
        except CascadeError as error:
            failures[pair.name] = str(error)
        on_case(pair)
    return Evaluation(
        cases=tuple(cases),
        failures=failures,
        failed_files={pair.name: (pair.image, pair.label) for pair in cohort.pairs if pair.name in failures},
        tumor_in_labels=cohort.tumor_in_labels,
        organ_sought=cascade.bundle.manifest.config.finds_organ,
        provenance=cascade.provenance,
        baseline_engine=None if baseline is None else baseline.provenance["engine"],
        tumor_sought=cascade.bundle.manifest.config.target == "tumor",
    )


def crop_coverage(truth: Labels, boxes: Mapping[int, Box]) -> CropCoverage:
    """Count the true tumor voxels inside the crop boxes of stage 2.

    Args:
        truth: `[z, row, col]`, true labels.
        boxes: The box of each slice processed by stage 2.
    """
    covered = CropCoverage(0, 0, 0, 0)
    for index, labels in enumerate(truth):
        tumor = labels == TUMOR_LABEL
        voxels = int(np.count_nonzero(tumor))
        if voxels:
            box = boxes.get(index)
            inside = 0 if box is None else int(np.count_nonzero(tumor[box.slices]))
            covered += CropCoverage(voxels, inside, 1, int(inside == 0))
    return covered


def _evaluate_case(
    pair: CasePair,
    cascade: Cascade,
    baseline: Cascade | None,
    reading: ScanOptions,
    on_open: Callable[[CasePair, Volume], None],
    on_slices: Callable[[int], None],
) -> CaseResult:
    volume = read_volume(pair.image, reading)
    labels = read_truth(pair, volume)
    truth = labels.voxels
    on_open(pair, volume)
    segmentation = cascade.run(volume, on_slices=on_slices)
    compared = None
    if baseline is not None:
        mask = baseline.run(volume, on_slices=on_slices).mask
        counts = {target: pool(_slice_counts(mask, truth, target)) for target in TARGETS}
        compared = BaselineCase(counts, compare(mask, segmentation.mask))
    return CaseResult(
        name=pair.name,
        status=segmentation.status,
        voxel_ml=volume.voxel_volume_ml,
        seconds=sum(segmentation.timings.values()),
        slices_without_organ=segmentation.slices_without_organ,
        warnings=(
            *(str(warning) for warning in segmentation.warnings),
            *(f"its label file: {warning}" for warning in labels.warnings),
        ),
        slices={target: _slice_counts(segmentation.mask, truth, target) for target in TARGETS},
        crop=crop_coverage(truth, segmentation.boxes),
        baseline=compared,
    )


def _slice_counts(mask: Labels, truth: Labels, target: Target) -> tuple[Confusion, ...]:
    lowest = LOWEST_LABEL[target]
    return tuple(confusion(found >= lowest, true >= lowest) for found, true in zip(mask, truth, strict=True))
