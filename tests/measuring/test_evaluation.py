"""Scores of a cohort, against a count of voxels one by one; and what is said where there is nothing to score."""

import gzip
import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.common.labels import TARGETS, Target
from cascade_rt.common.metrics import SAMPLE_SETS, Average, SampleSet
from cascade_rt.data.case_pairs import check_pairs, pair_cases
from cascade_rt.measuring.evaluation import CropCoverage, Evaluation, crop_coverage, evaluate
from cascade_rt.models.crop import Box
from tests.cohort_files import VOXEL_ML, Array, block, fake_cascade, save_cohort, truncate

Cases = dict[str, tuple[Array, Array]]

NOTHING, ORGAN, TUMOR = block(), block((1, 2, 3)), block((1, 2, 3), label=2)


def evaluated(
    root: Path,
    cases: Cases | None = None,
    stage1: Literal["multiscale_unet", "none"] = "multiscale_unet",
    **options: object,
) -> Evaluation:
    """Write the cases (found, truth) and evaluate the fake cascade, which finds exactly `found`."""
    save_cohort(root, cases or {})
    cohort = check_pairs(pair_cases(root / "images", root / "labels"))
    return evaluate(cohort, fake_cascade(stage1=stage1), **options)  # type: ignore[arg-type]


def random_cases(seed: int) -> Cases:
    """Three cases; slices without organ, slices without tumor and one case without tumor among them."""
    random = np.random.default_rng(seed)
    cases = {}
    for name in ("a", "b", "c"):
        found, truth = (random.choice(3, size=(5, 8, 8), p=[0.7, 0.2, 0.1]).astype(np.uint8) for _ in range(2))
        truth[0], found[0], truth[1], found[2] = 0, 0, truth[1] > 0, found[2] > 0
        cases[name] = (found, np.minimum(truth, 1) if name == "c" else truth)
    return cases


# An implementation of its own: sets of voxels, and the three metrics from them.


def voxels(labels: Array, target: Target) -> set[tuple[int, ...]]:
    wanted = (1, 2) if target == "organ" else (2,)
    return {index for index in np.ndindex(labels.shape) if int(labels[index]) in wanted}


def by_sets(found: Array, truth: Array, target: Target) -> dict[str, float]:
    one, other = voxels(found, target), voxels(truth, target)
    everything = set(np.ndindex(truth.shape))
    return {
        "dice": 2 * len(one & other) / (len(one) + len(other)) if one | other else 1.0,
        "sensitivity": len(one & other) / len(other) if other else math.nan,
        "specificity": len(everything - one - other) / len(everything - other) if everything - other else math.nan,
    }


def averaged(samples: list[tuple[Array, Array]], target: Target, chosen: SampleSet) -> dict[str, Average]:
    over = [pair for pair in samples if chosen == "all" or voxels(pair[1], target)]
    scores = [by_sets(*pair, target) for pair in over]
    averages = {}
    for metric in ("dice", "sensitivity", "specificity"):
        values = [score[metric] for score in scores if not math.isnan(score[metric])]
        spread = statistics.stdev(values)
        averages[metric] = Average(statistics.fmean(values), spread, len(values), len(scores) - len(values))
    return averages


@pytest.mark.parametrize("chosen", SAMPLE_SETS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_are_those_of_counting_voxels_one_by_one(
    seed: int, target: Target, chosen: SampleSet, tmp_path: Path
) -> None:
    cases = random_cases(seed)
    scores = evaluated(tmp_path, cases).scores(target)
    slices = [pair for found, truth in cases.values() for pair in zip(found, truth, strict=True)]
    for means, samples in ((scores.slices[chosen], slices), (scores.cases[chosen], list(cases.values()))):
        for metric, expected in averaged(samples, target, chosen).items():
            assert asdict(getattr(means, metric)) == pytest.approx(asdict(expected), nan_ok=True)


@pytest.mark.parametrize("target", TARGETS)
def test_pooled_scores_are_those_of_one_image_of_all_voxels(target: Target, tmp_path: Path) -> None:
    cases = random_cases(2)
    pooled = evaluated(tmp_path, cases).scores(target).pooled
    found, truth = (np.concatenate([case[part] for case in cases.values()]) for part in (0, 1))
    expected = by_sets(found, truth, target)
    assert {metric: getattr(pooled, metric) for metric in expected} == pytest.approx(expected)


def test_a_case_stored_in_another_orientation_has_the_same_scores(tmp_path: Path) -> None:
    cases = random_cases(3)
    straight = evaluated(tmp_path / "straight", cases).scores("tumor")
    save_cohort(tmp_path / "turned", cases)
    path = tmp_path / "turned" / "labels" / "a.nii.gz"
    turned = nib.as_closest_canonical(nib.load(path))
    assert turned.affine[0, 0] > 0
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    assert evaluated(tmp_path / "turned").scores("tumor") == straight


# Where there is nothing to find


def test_slices_without_the_target_are_left_out_by_default(tmp_path: Path) -> None:
    found = block((1, 2, 3), (2, 5, 5))
    means = evaluated(tmp_path, {"a": (found, ORGAN)}).scores("organ").slices["positive"]
    assert (means.dice.mean, means.dice.count, means.both_empty) == (1.0, 1, 0)


def test_over_all_slices_false_alarms_score_0_and_true_negatives_1(tmp_path: Path) -> None:
    found = block((1, 2, 3), (2, 5, 5))
    means = evaluated(tmp_path, {"a": (found, ORGAN)}).scores("organ").slices["all"]
    assert (means.dice.mean, means.dice.count, means.both_empty) == (0.75, 4, 2)


def test_sensitivity_without_the_target_is_left_out_and_counted(tmp_path: Path) -> None:
    sensitivity = evaluated(tmp_path, {"a": (ORGAN, ORGAN)}).scores("organ").slices["all"].sensitivity
    assert (sensitivity.mean, sensitivity.count, sensitivity.undefined) == (1.0, 1, 3)


def test_specificity_without_background_is_left_out_and_counted(tmp_path: Path) -> None:
    full = np.ones((2, 8, 8), np.uint8)
    full[1, :4] = 0
    specificity = evaluated(tmp_path, {"a": (full, full)}).scores("organ").slices["all"].specificity
    assert (specificity.mean, specificity.count, specificity.undefined) == (1.0, 1, 1)


def test_a_scan_without_organ_in_the_label_has_no_scores(tmp_path: Path) -> None:
    scores = evaluated(tmp_path, {"a": (NOTHING, NOTHING)}).scores("organ")
    assert scores.cases["positive"].dice.count == 0
    assert math.isnan(scores.cases["positive"].dice.mean)
    assert scores.cases["all"].both_empty == 1


def test_an_empty_mask_of_something_has_dice_0(tmp_path: Path) -> None:
    scores = evaluated(tmp_path, {"a": (NOTHING, TUMOR)}).scores("tumor")
    assert (scores.cases["positive"].dice.mean, scores.slices_missed) == (0.0, 1)


def test_the_spread_of_a_single_case_is_undefined(tmp_path: Path) -> None:
    assert math.isnan(evaluated(tmp_path, {"a": (ORGAN, ORGAN)}).scores("organ").cases["all"].dice.deviation)


def test_labels_without_tumors_say_nothing_of_tumors(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, {"a": (TUMOR, ORGAN), "b": (ORGAN, ORGAN)})
    assert (evaluation.tumor_in_labels, evaluation.targets) == (False, ("organ",))


def test_a_tumor_only_bundle_has_no_organ_scores(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path, {"a": (TUMOR, TUMOR)}, stage1="none")
    assert (evaluation.organ_sought, evaluation.targets) == (False, ("tumor",))
    assert evaluation.scores("tumor").pooled.dice == 1.0
    assert evaluation.cases[0].status == "tumor_only"


# Tumors as yes or no


def test_a_tumor_is_detected_if_any_voxel_overlaps(tmp_path: Path) -> None:
    found = block((1, 2, 3), (1, 2, 4), label=2)
    detection = evaluated(tmp_path, {"a": (found, TUMOR)}).detection()
    assert (detection.tumor_cases, detection.detected) == (1, 1)


def test_a_tumor_is_not_detected_by_its_neighbour(tmp_path: Path) -> None:
    detection = evaluated(tmp_path, {"a": (block((1, 2, 4), label=2), TUMOR)}).detection()
    assert (detection.tumor_cases, detection.detected) == (1, 0)


def test_false_alarms_in_cases_without_tumor_are_counted_in_ml(tmp_path: Path) -> None:
    two = block((1, 2, 3), (1, 2, 4), label=2)
    cases = {"alarm": (two, ORGAN), "quiet": (ORGAN, ORGAN), "true": (two, TUMOR)}
    detection = evaluated(tmp_path, cases).detection()
    assert (detection.free_cases, detection.false_alarms) == (2, 1)
    assert detection.false_ml == pytest.approx(2 * VOXEL_ML)


# What stage 2 was shown


def test_crop_recall_counts_tumor_voxels_inside_a_hand_made_box() -> None:
    truth = np.zeros((4, 10, 10), np.uint8)
    truth[0, 2, 2:6] = 2  # columns 2 and 3 lie inside
    truth[1, 9, 9] = 2  # outside
    truth[2, 5, 5] = 2  # no box
    truth[3, 1, 1] = 1  # no tumor
    box = Box(0, 0, 4, 4)
    found = crop_coverage(truth, {0: box, 1: box, 3: box})
    assert found == CropCoverage(voxels=6, inside=2, slices=3, slices_outside=2)
    assert found.recall == 2 / 6


def test_crop_recall_without_tumor_is_undefined() -> None:
    assert math.isnan(crop_coverage(ORGAN, {}).recall)


def test_a_box_that_reaches_beyond_the_image_covers_what_is_there() -> None:
    assert crop_coverage(TUMOR, {1: Box(0, 0, 64, 64)}).inside == 1


def test_crop_recall_of_a_cohort_follows_the_boxes_of_its_scans(tmp_path: Path) -> None:
    shape = (2, 160, 160)
    found, near, far = block((0, 5, 5), shape=shape), (0, 20, 20), (0, 150, 150)
    cases = {"a": (found, block(near, far, label=2, shape=shape)), "b": (found, block(far, label=2, shape=shape))}
    assert evaluated(tmp_path, cases).crop() == CropCoverage(voxels=3, inside=1, slices=2, slices_outside=1)


# One case at a time


def test_a_case_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    save_cohort(tmp_path, dict.fromkeys(("a", "b", "c"), (ORGAN, ORGAN)))
    truncate(tmp_path / "images" / "b.nii.gz")
    evaluation = evaluated(tmp_path)
    assert [case.name for case in evaluation.cases] == ["a", "c"]
    assert list(evaluation.failures) == ["b"]
    assert "the file is truncated" in evaluation.failures["b"]


def test_a_cohort_whose_cases_all_fail_has_undefined_scores(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"a": (TUMOR, TUMOR)})
    truncate(tmp_path / "images" / "a.nii.gz")
    evaluation = evaluated(tmp_path, baseline=fake_cascade())
    assert math.isnan(evaluation.scores("tumor").cases["all"].dice.mean)
    assert evaluation.comparison() is None


def test_no_image_is_kept(tmp_path: Path) -> None:
    def arrays(value: object) -> bool:
        if isinstance(value, dict):
            return any(map(arrays, value.values()))
        return any(map(arrays, value)) if isinstance(value, list | tuple) else isinstance(value, np.ndarray)

    assert not arrays(asdict(evaluated(tmp_path, random_cases(0), baseline=fake_cascade())))


def test_a_scan_that_is_doubtful_is_named_in_the_warnings(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"a": (ORGAN, ORGAN), "b": (ORGAN, ORGAN)})
    for folder in ("images", "labels"):
        path = tmp_path / folder / "b.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1, 1, 5, 1])), path)
    (warning,) = (each for each in evaluated(tmp_path).warnings if "12.5 mm apart" in each)
    assert warning.startswith("b: ")


def test_doubts_about_a_label_file_are_warnings(tmp_path: Path) -> None:
    save_cohort(tmp_path, {"a": (ORGAN, ORGAN)})
    label = tmp_path / "labels" / "a.nii.gz"
    label.write_bytes(gzip.compress(gzip.decompress(label.read_bytes()) + bytes(7)))
    assert (
        "a: its label file: the file has trailing data after the image; it is ignored" in evaluated(tmp_path).warnings
    )


def test_doubts_about_the_mask_are_warnings(tmp_path: Path) -> None:
    found = np.maximum(ORGAN, block((3, 6, 6), label=2))
    warnings = evaluated(tmp_path, {"a": (found, ORGAN)}).warnings
    assert [
        warning for warning in warnings if warning.startswith("a: ") and "not touch the segmented pancreas" in warning
    ]


def test_slices_in_which_stage_1_finds_nothing_are_counted(tmp_path: Path) -> None:
    (case,) = evaluated(tmp_path, {"a": (ORGAN, ORGAN)}).cases
    assert case.slices_without_organ == 3


@pytest.mark.parametrize("engines", [1, 2])
def test_progress_counts_the_slices_of_every_engine(engines: int, tmp_path: Path) -> None:
    seen, opened, done = [], [], []
    evaluated(
        tmp_path,
        {"a": (ORGAN, ORGAN), "b": (ORGAN, ORGAN)},
        baseline=fake_cascade() if engines == 2 else None,
        on_open=lambda pair, volume: opened.append((pair.name, len(volume.voxels))),
        on_slices=seen.append,
        on_case=lambda pair: done.append(pair.name),
    )
    assert (opened, sum(seen), done) == ([("a", 4), ("b", 4)], 8 * engines, ["a", "b"])


# Beside a baseline

EVERYTHING_IS_TUMOR = {"tumor_from": 0.5}  # the baseline takes pancreas, salient 0.59, for tumor


def test_equal_engines_do_not_differ(tmp_path: Path) -> None:
    comparison = evaluated(tmp_path, random_cases(0), baseline=fake_cascade()).comparison()
    assert comparison is not None
    assert [(found.mean, found.interval) for found in comparison.dice.values()] == [(0.0, (0.0, 0.0))] * 2
    assert comparison.agreement.different == 0


def test_the_paired_difference_is_over_cases_with_the_target(tmp_path: Path) -> None:
    found = block((1, 2, 3), (1, 2, 4), (1, 2, 5))
    better = found.copy()
    better[1, 2, 3] = 2
    cases = {
        "better": (better, better),  # tumor Dice 1, baseline 2 / 4
        "worse": (found, found * 2),  # tumor Dice 0, baseline 1
        "free": (found, found),
    }
    comparison = evaluated(tmp_path, cases, baseline=fake_cascade(**EVERYTHING_IS_TUMOR)).comparison()
    assert comparison is not None
    tumor = comparison.dice["tumor"]
    assert (tumor.count, tumor.mean) == (2, pytest.approx((0.5 - 1.0) / 2))
    assert (tumor.worst_case, tumor.worst) == ("worse", -1.0)
    assert (comparison.dice["organ"].count, comparison.dice["organ"].mean) == (3, 0.0)


def test_voxels_that_differ_are_pooled_over_cases(tmp_path: Path) -> None:
    cases = {"a": (ORGAN, ORGAN), "b": (block((0, 1, 1), (3, 7, 7)), ORGAN)}
    comparison = evaluated(tmp_path, cases, baseline=fake_cascade(**EVERYTHING_IS_TUMOR)).comparison()
    assert comparison is not None
    assert (comparison.agreement.different, comparison.agreement.voxels) == (3, 2 * 4 * 8 * 8)


def test_without_a_baseline_there_is_no_comparison(tmp_path: Path) -> None:
    assert evaluated(tmp_path, {"a": (ORGAN, ORGAN)}).comparison() is None
