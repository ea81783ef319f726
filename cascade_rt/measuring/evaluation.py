"""How well a cascade finds pancreas and tumor in scans whose true labels are known.

Dice, SEN and SPE of two targets, the organ (label > 0) and the tumor (label 2), in three aggregations:

    per slice       mean over slices, each the full frame and of the same weight; the protocol of the paper
    per case        mean over scans, each a whole volume
    pooled          from the voxels of all scans, as if they were one

The means are over the slices or cases that hold the target (`positive`), as in the paper, or over `all` of them, which
also shows false alarms. In the latter, empty on empty is Dice 1 and counted; SEN without anything to find is undefined,
left out and counted.

One scan at a time is in memory; of each, only counts are kept.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.labels import LOWEST_LABEL, TARGETS, TUMOR_LABEL, Target
from cascade_rt.common.metrics import SAMPLE_SETS, Confusion, SampleSet, Scores, average_scores, confusion, pool
from cascade_rt.data.case_pairs import CasePair, Cohort, read_truth
from cascade_rt.errors import CascadeError
from cascade_rt.measuring.agreement import MaskAgreement, PairedDifference, mask_agreement, paired_difference
from cascade_rt.models.crop import Box
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.volume import Volume, read_volume

Labels = npt.NDArray[np.uint8]

"""A voxel belongs to a target where its label is at least this: the organ includes the tumor."""


@dataclass(frozen=True, slots=True)
class CropCoverage:
    """How much of the true tumor stage 2 was shown. What it was not shown it cannot find."""

    voxels: int
    """True tumor voxels."""
    inside: int
    """Those inside the box of their slice."""
    slices: int
    """Slices with true tumor."""
    slices_outside: int
    """Those of which no tumor voxel lies inside a box."""

    def __add__(self, other: "CropCoverage") -> "CropCoverage":
        return CropCoverage(
            self.voxels + other.voxels,
            self.inside + other.inside,
            self.slices + other.slices,
            self.slices_outside + other.slices_outside,
        )

    @property
    def recall(self) -> float:
        """Share of the true tumor voxels inside the boxes; NaN without tumor."""
        return self.inside / self.voxels if self.voxels else math.nan


@dataclass(frozen=True, slots=True)
class BaselineCase:
    """The same scan through the baseline engine."""

    counts: Mapping[Target, Confusion]
    """Against the truth, over the whole scan."""
    agreement: MaskAgreement
    """Between both engines."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What is kept of one scan."""

    name: str
    status: str
    voxel_ml: float
    seconds: float
    """Time of the cascade, without reading the files."""
    slices_without_organ: int
    """Slices in which stage 1 found nothing (see `Segmentation`)."""
    warnings: tuple[str, ...]
    """What is doubtful about the scan, about what was found in it, and about its label file."""
    slices: Mapping[Target, tuple[Confusion, ...]]
    """Counts of each slice."""
    crop: CropCoverage
    baseline: BaselineCase | None = None

    def counts(self, target: Target) -> Confusion:
        """Counts over the whole scan."""
        return pool(self.slices[target])


@dataclass(frozen=True, slots=True)
class TargetScores:
    """Dice, SEN and SPE of one target in all aggregations."""

    slices: Mapping[SampleSet, Scores]
    cases: Mapping[SampleSet, Scores]
    pooled: Confusion
    slices_missed: int
    """Slices with the target in which not one voxel of it was found."""


@dataclass(frozen=True, slots=True)
class TumorDetection:
    """Tumors as yes or no."""

    tumor_cases: int
    detected: int
    """Cases with tumor in which at least one of its voxels was found."""
    free_cases: int
    false_alarms: int
    """Cases without tumor in which some was found."""
    false_ml: float
    """Volume found in them, all together."""


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """The engine beside the baseline engine, on the same scans."""

    dice: Mapping[Target, PairedDifference]
    """Dice per case, engine minus baseline, over cases that hold the target."""
    agreement: MaskAgreement


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a cohort has shown."""

    cases: tuple[CaseResult, ...]
    failures: Mapping[str, str]
    """For each case that failed, why."""
    tumor_in_labels: bool
    """Whether the labels mark tumors; where they do not, nothing can be said of tumors."""
    organ_sought: bool
    """Whether the bundle looks for the organ; where it does not, nothing can be said of it."""
    provenance: Mapping[str, Any]
    """Bundle, engine and versions, as in `Segmentation`."""
    baseline_engine: Mapping[str, Any] | None = None
    """What the baseline ran on, where there was one."""
    tumor_sought: bool = True
    """Whether the bundle looks for tumors; where it does not, nothing can be said of them."""
    failed_files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """For each case that failed, its files, which its message may name."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the scans and of what was found in them, with the name of the case before them."""
        return tuple(f"{case.name}: {warning}" for case in self.cases for warning in case.warnings)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that the labels know and the bundle looks for."""
        known = {"organ": self.organ_sought, "tumor": self.tumor_in_labels and self.tumor_sought}
        return tuple(target for target in TARGETS if known[target])

    def scores(self, target: Target) -> TargetScores:
        """Dice, SEN and SPE of a target."""
        slices = [counts for case in self.cases for counts in case.slices[target]]
        cases = [case.counts(target) for case in self.cases]
        return TargetScores(
            slices={chosen: average_scores(slices, chosen) for chosen in SAMPLE_SETS},
            cases={chosen: average_scores(cases, chosen) for chosen in SAMPLE_SETS},
            pooled=pool(cases),
            slices_missed=sum(counts.positive > 0 and counts.true_positive == 0 for counts in slices),
        )

    def detection(self) -> TumorDetection:
        """In how many cases a tumor was found, rightly and wrongly."""
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
        """How much of the true tumors stage 2 was shown."""
        return sum((case.crop for case in self.cases), start=CropCoverage(0, 0, 0, 0))

    def comparison(self) -> BaselineComparison | None:
        """The engine beside the baseline; None where no baseline was run."""
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
        agreement = sum((baseline.agreement for _, baseline in compared.values()), start=MaskAgreement(0, 0))
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
    """Segment each scan of a cohort and compare it with its true labels; a case that fails does not stop the others.

    Args:
        cohort: Pairs that have been checked (see `check_pairs`).
        cascade: What is evaluated.
        baseline: The same bundle on another engine, to compare with; it runs on each scan too.
        reading: What the user says about the scans that they do not say themselves.
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
    """Count the true tumor inside the boxes that stage 2 was shown.

    Args:
        truth: `[z, row, col]`, true labels.
        boxes: For each slice that stage 2 has seen, its box.
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
        compared = BaselineCase(counts, mask_agreement(segmentation.mask, mask))
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
