"""Print an evaluation for human readers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from cascade_rt.common.labels import TARGETS, Target
from cascade_rt.common.metrics import Average, SampleSet, Scores
from cascade_rt.measuring.evaluation import Evaluation, TargetScores
from cascade_rt.measuring.paired_difference import PairedDifference
from cascade_rt_cli.console import print_intended_use, print_rows

_NAMES: Mapping[Target, str] = {"organ": "pancreas", "tumor": "tumor"}


def print_evaluation(console: Console, evaluation: Evaluation, chosen: SampleSet) -> None:
    """Print scores, findings and misses, the baseline comparison and the engines. The caller reports failures."""
    console.print(_score_table(evaluation, chosen))
    console.print()
    for rows in (_findings(evaluation), _left_out(evaluation, chosen), _differences(evaluation), _engines(evaluation)):
        print_rows(console, rows)
    print_intended_use(console, evaluation)


def _score_table(evaluation: Evaluation, chosen: SampleSet) -> Table:
    """Make a table of mean ± standard deviation, narrow enough for the 80 columns of a pipe."""
    table = Table("", "over", "Dice", "SEN", "SPE", box=None, pad_edge=False)
    for target in TARGETS:
        if target in evaluation.targets:
            first, *others = _score_rows(evaluation.scores(target), chosen)
            table.add_row(_NAMES[target], *first)
            for row in others:
                table.add_row("", *row)
        else:
            reason = "not looked for" if target == "organ" or not evaluation.tumor_sought else "not in the labels"
            table.add_row(_NAMES[target], reason)
    return table


def _score_rows(scores: TargetScores, chosen: SampleSet) -> Iterator[tuple[str, ...]]:
    for unit, means in (("slices", scores.slices[chosen]), ("cases", scores.cases[chosen])):
        metrics = (means.dice, means.sensitivity, means.specificity)
        which = f"{unit} with it" if chosen == "positive" else f"all {unit}"
        yield f"{which} ({means.dice.count})", *map(_mean_text, metrics)
    pooled = scores.pooled
    yield "all voxels, pooled", *map(_number_text, (pooled.dice, pooled.sensitivity, pooled.specificity))


def _findings(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    missed = ", ".join(f"{_NAMES[target]} {evaluation.scores(target).slices_missed}" for target in evaluation.targets)
    yield "missed", f"slices with the target in which nothing of it was found: {missed}"
    if "tumor" not in evaluation.targets:
        return
    found, crop = evaluation.detection(), evaluation.crop()
    yield "detected", f"tumor in {found.detected} of {found.tumor_cases} cases that have one"
    if found.free_cases:
        alarms = f"tumor in {found.false_alarms} of {found.free_cases} cases that have none"
        yield "false", f"{alarms}, {found.false_ml:.2f} ml in all"
    if crop.voxels:
        yield (
            "crops",
            f"hold {100 * crop.recall:.2f} % of the true tumor; "
            f"nothing of it in {crop.slices_outside} of {crop.slices} slices",
        )


def _left_out(evaluation: Evaluation, chosen: SampleSet) -> Iterator[tuple[str, str]]:
    for target in evaluation.targets:
        scores = evaluation.scores(target)
        for unit, means in (("slices", scores.slices[chosen]), ("cases", scores.cases[chosen])):
            yield from _undefined(_NAMES[target], unit, means)


def _undefined(name: str, unit: str, means: Scores) -> Iterator[tuple[str, str]]:
    if means.both_empty:
        yield "empty", f"{name}: {means.both_empty} {unit} where nothing is and nothing was found count as Dice 1"
    for metric, average in (("SEN", means.sensitivity), ("SPE", means.specificity)):
        if average.undefined:
            yield "left out", f"{name}: {average.undefined} {unit} in which {metric} is undefined"


def _differences(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    comparison = evaluation.comparison()
    if comparison is None:
        return
    for target, difference in comparison.dice.items():
        yield "baseline", f"{_NAMES[target]}: {_difference_text(difference)}"
    masks = comparison.agreement
    share = f"{masks.per_100_000:.2f} in 100,000"
    yield "", f"{masks.different:,} of {masks.voxels:,} voxels have another label ({share})"


def _difference_text(difference: PairedDifference) -> str:
    if difference.worst_case is None:
        return "no case to compare"
    low, high = difference.interval
    interval = "" if math.isnan(low) else f" (95 % interval {low:+.5f} to {high:+.5f})"
    cases = f"over {difference.count} case{'s' if difference.count > 1 else ''}"
    worst = f"worst {difference.worst_case} {difference.worst:+.5f}"
    return f"Dice engine minus baseline {difference.mean:+.5f}{interval} {cases}, {worst}"


def _engines(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    yield "engine", _engine_text(evaluation.provenance["engine"])
    for reason in evaluation.provenance["engines_passed_over"]:
        yield "", reason
    if evaluation.baseline_engine is not None:
        yield "baseline", _engine_text(evaluation.baseline_engine)
    for warning in evaluation.warnings:
        yield "warning", warning


def _engine_text(engine: Mapping[str, Any]) -> str:
    return f"{engine['backend']} {engine['version']} on {engine['device']}, {engine['precision']}"


def _mean_text(average: Average) -> str:
    spread = "" if math.isnan(average.deviation) else f" ± {average.deviation:.3f}"
    return _number_text(average.mean) + spread


def _number_text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
