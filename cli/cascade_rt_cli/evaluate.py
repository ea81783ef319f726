"""`cascade-rt evaluate`: segment scans with known labels and score the masks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cascade_rt.common.labels import TARGETS, Target
from cascade_rt.common.metrics import SAMPLE_SETS, Average, SampleSet, Scores
from cascade_rt.common.outputs import check_files
from cascade_rt.engines import BACKENDS, Backend, EngineRequest
from cascade_rt.errors import PartialFailureError, UsageError
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.console import print_rows, progress_bar, results_console
from cascade_rt_cli.findings import print_intended_use
from cascade_rt_cli.messages import printable, shown_errors, shown_message
from cascade_rt_cli.options import (
    PATH,
    bundle_option,
    engine_options,
    overwrite_option,
    scan_options,
)
from cascade_rt_cli.output import print_note

if TYPE_CHECKING:
    from cascade_rt.data.case_pairs import CasePair
    from cascade_rt.measuring.evaluation import Evaluation, TargetScores
    from cascade_rt.measuring.paired_difference import PairedDifference
    from cascade_rt.run.cascade import Cascade
    from cascade_rt.scans.volume import Volume

_NAMES: Mapping[Target, str] = {"organ": "pancreas", "tumor": "tumor"}


@click.command()
@click.option("--images", type=PATH, required=True, metavar="DIR", help="Folder of the scans, in any format of infer.")
@click.option("--labels", type=PATH, required=True, metavar="DIR", help="Folder of their labels.")
@click.option(
    "--organ",
    type=click.IntRange(1, 255),
    multiple=True,
    metavar="VALUE",
    help="Label value of the pancreas; may be given several times. Unlisted values are background.",
)
@click.option("--tumor", type=click.IntRange(1, 255), multiple=True, metavar="VALUE", help="Label value of the tumor.")
@click.option(
    "--slices",
    type=click.Choice(SAMPLE_SETS),
    default="positive",
    show_default=True,
    help="Slices and cases in the printed means: those with the target in the label, or all. The report holds both.",
)
@click.option(
    "--baseline", type=click.Choice(BACKENDS), help="Also run this engine in fp32 and print how closely the two agree."
)
@click.option("-o", "--output", type=PATH, metavar="JSON", help="Write everything to this file.")
@click.option("--csv", "table", type=PATH, metavar="CSV", help="Write one row per case to this file.")
@scan_options
@bundle_option
@engine_options
@overwrite_option
def evaluate(
    images: Path,
    labels: Path,
    organ: tuple[int, ...],
    tumor: tuple[int, ...],
    slices: SampleSet,
    baseline: Backend | None,
    output: Path | None,
    table: Path | None,
    bundle: Path | None,
    engines: EngineRequest,
    overwrite: bool,
    reading: ScanOptions,
) -> None:
    """Segment scans whose true labels are known, and score the masks.

    A scan and its label must have the same name; nnU-Net's suffix _0000 of scans is ignored. The label of a DICOM study
    in the subfolder study1, or in study1.zip, is study1.nii.gz. Labels are 0 (background),
    1 (pancreas) and 2 (tumor), unless --organ and --tumor say otherwise. All labels are checked before the first scan
    is segmented.

    \b
    Example:
      cascade-rt evaluate --images imagesTs --labels labelsTs --bundle bundles/first -o report.json
      cascade-rt evaluate --images img --labels seg --organ 6
    """  # noqa: D301
    from cascade_rt.data.case_pairs import LabelValues, pair_cases
    from cascade_rt.measuring.evaluation_report import save_case_table, save_report
    from cascade_rt.run.cascade import open_cascade

    values = LabelValues(organ or LabelValues().organ, tumor) if organ or tumor else None
    pairs = pair_cases(images, labels, values, dicom=True)
    check_files((output, table), _files(pairs), overwrite=overwrite)
    with (
        open_cascade(bundle, engines=engines, falls_back=False) as cascade,
        nullcontext()
        if baseline is None
        else open_cascade(
            bundle, engines=EngineRequest(baseline, "fp32", engines.plans, engines.device), falls_back=False
        ) as reference,
    ):
        print_note(f"evaluating {len(pairs)} cases, {_engines_compared(cascade, reference, baseline)}")
        evaluation = _evaluate(pairs, cascade, reference, reading)
    if output is not None:
        save_report(evaluation, output, overwrite=overwrite)
    if table is not None:
        save_case_table(evaluation, table, overwrite=overwrite)
    _print_evaluation(results_console(), evaluation, slices)
    if evaluation.failures:
        files = {pair.name: (pair.image, pair.label) for pair in pairs}
        lines = "\n  ".join(shown_message(text, files[name]) for name, text in evaluation.failures.items())
        raise PartialFailureError(f"{len(evaluation.failures)} of {len(pairs)} cases failed\n  {lines}")


def _files(pairs: "Sequence[CasePair]") -> list[Path]:
    return [path for pair in pairs for path in (pair.image, pair.label)]


def _engines_compared(cascade: "Cascade", reference: "Cascade | None", baseline: Backend | None) -> str:
    """Say what is compared with what. Raises UsageError if it is one and the same engine."""
    engine = cascade.engines.stage1.info
    if reference is not None and reference.engines.stage1.info == engine:
        raise UsageError(f"the baseline is the engine itself ({baseline}); choose another with --backend")
    against = "" if baseline is None else f", against {baseline} in fp32"
    return f"bundle {cascade.bundle.manifest.name} on {engine.backend} {engine.device} in {engine.precision}{against}"


def _evaluate(
    pairs: "tuple[CasePair, ...]", cascade: "Cascade", baseline: "Cascade | None", reading: ScanOptions
) -> "Evaluation":
    """Check all labels, which is fast, and only then segment the scans. Raises InputError if a label is unusable."""
    from cascade_rt.data.case_pairs import check_pairs
    from cascade_rt.measuring.evaluation import evaluate as evaluate_cohort

    with progress_bar() as bars, shown_errors(_files(pairs)):
        checking = bars.add_task("checking labels", total=len(pairs))
        cohort = check_pairs(pairs, reading=reading, on_pair=lambda: bars.advance(checking))
    runs = 1 if baseline is None else 2
    with progress_bar() as bars:
        all_cases, case = bars.add_task("cases", total=len(pairs)), bars.add_task("slices", total=None)

        def show(pair: "CasePair", volume: "Volume") -> None:
            bars.reset(case, description=escape(printable(pair.name)), total=runs * len(volume.voxels))

        return evaluate_cohort(
            cohort,
            cascade,
            baseline,
            reading=reading,
            on_open=show,
            on_slices=lambda count: bars.advance(case, count),
            on_case=lambda _: bars.advance(all_cases),
        )


def _print_evaluation(console: Console, evaluation: "Evaluation", chosen: SampleSet) -> None:
    """Print scores, findings and misses, the baseline comparison and the engines. The caller reports failures."""
    console.print(_score_table(evaluation, chosen))
    console.print()
    for rows in (_findings(evaluation), _left_out(evaluation, chosen), _differences(evaluation), _engines(evaluation)):
        print_rows(console, rows)
    print_intended_use(console, evaluation.provenance["bundle"])


def _score_table(evaluation: "Evaluation", chosen: SampleSet) -> Table:
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


def _score_rows(scores: "TargetScores", chosen: SampleSet) -> Iterator[tuple[str, ...]]:
    for unit, means in (("slices", scores.slices[chosen]), ("cases", scores.cases[chosen])):
        metrics = (means.dice, means.sensitivity, means.specificity)
        which = f"{unit} with it" if chosen == "positive" else f"all {unit}"
        yield f"{which} ({means.dice.count})", *map(_mean_text, metrics)
    pooled = scores.pooled
    yield "all voxels, pooled", *map(_number_text, (pooled.dice, pooled.sensitivity, pooled.specificity))


def _findings(evaluation: "Evaluation") -> Iterator[tuple[str, str]]:
    missed = ", ".join(f"{_NAMES[target]} {evaluation.scores(target).slices_missed}" for target in evaluation.targets)
    yield "missed", f"slices with the target in which none of it was found: {missed}"
    if "tumor" not in evaluation.targets:
        return
    found, crop = evaluation.detection(), evaluation.crop()
    yield "detected", f"tumor in {found.detected} of {found.tumor_cases} cases that have one"
    if found.free_cases:
        alarms = f"tumor in {found.false_alarms} of {found.free_cases} cases that have none"
        yield "false", f"{alarms}, {found.false_ml:.2f} ml in total"
    if crop.voxels:
        yield (
            "crops",
            f"contain {100 * crop.recall:.2f} % of the true tumor; "
            f"none of it in {crop.slices_outside} of {crop.slices} slices",
        )


def _left_out(evaluation: "Evaluation", chosen: SampleSet) -> Iterator[tuple[str, str]]:
    for target in evaluation.targets:
        scores = evaluation.scores(target)
        for unit, means in (("slices", scores.slices[chosen]), ("cases", scores.cases[chosen])):
            yield from _undefined(_NAMES[target], unit, means)


def _undefined(name: str, unit: str, means: Scores) -> Iterator[tuple[str, str]]:
    if means.both_empty:
        yield "empty", f"{name}: {means.both_empty} {unit} without it, in which none was found, count as Dice 1"
    for metric, average in (("SEN", means.sensitivity), ("SPE", means.specificity)):
        if average.undefined:
            yield "left out", f"{name}: {average.undefined} {unit} in which {metric} is undefined"


def _differences(evaluation: "Evaluation") -> Iterator[tuple[str, str]]:
    comparison = evaluation.comparison()
    if comparison is None:
        return
    for target, difference in comparison.dice.items():
        yield "baseline", f"{_NAMES[target]}: {_difference_text(difference)}"
    masks = comparison.agreement
    share = f"{masks.per_100_000:.2f} in 100,000"
    yield "", f"{masks.different:,} of {masks.voxels:,} voxels have a different label ({share})"


def _difference_text(difference: "PairedDifference") -> str:
    if difference.worst_case is None:
        return "no case to compare"
    low, high = difference.interval
    interval = "" if math.isnan(low) else f" (95 % interval {low:+.5f} to {high:+.5f})"
    cases = f"over {difference.count} case{'s' if difference.count > 1 else ''}"
    worst = f"worst {difference.worst_case} {difference.worst:+.5f}"
    return f"Dice engine minus baseline {difference.mean:+.5f}{interval} {cases}, {worst}"


def _engines(evaluation: "Evaluation") -> Iterator[tuple[str, str]]:
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
