"""How well does a bundle find the pancreas in real patients?

    python -m benchmarks.patients BUNDLE --slices FOLDER --pictures pictures -o results.jsonl
    python -m benchmarks.patients BUNDLE --scans IMAGES LABELS --organ 6 --without-organ -o results.jsonl --append

Patients go through the exported bundle at the resolution of their files. JSON lines, each written as soon as it is
known, and tables in Markdown on standard output.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.patients.cases import Case, choose_cases, find_scans, find_slices, read_negatives, read_patient
from benchmarks.patients.engines import arm_names, open_arms
from benchmarks.patients.gallery import Gallery
from benchmarks.patients.measure import (
    measure_case,
    measure_negatives,
    measure_without_organ,
    summary_lines,
    summary_without_organ,
)
from benchmarks.patients.results import Line, Results, machine_line
from benchmarks.patients.scores import Bootstrap
from benchmarks.patients.table import model_card
from cascade_rt.bundles.bundle import read_bundle
from cascade_rt.common.outputs import check_file
from cascade_rt.errors import CascadeError, UsageError
from cascade_rt.run.cascade import Cascade

PATH = click.Path(path_type=Path)
TEST_PATIENTS = "51-62"
"""Patients of the NIH slices that the shipped bundle was not trained on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    bundle: Path
    cases: Sequence[Case]
    arms: Sequence[str]
    without_organ: bool
    negatives: Path | None
    bootstrap: Bootstrap


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--slices", type=PATH, metavar="FOLDER", help="Stacks of scattered slices (subfolders images and labels)."
)
@click.option(
    "--cases", default=TEST_PATIENTS, show_default=True, metavar="NUMBERS", help="Patients of --slices to use, or all."
)
@click.option("--scans", nargs=2, type=PATH, metavar="IMAGES LABELS", help="Whole scans; both may be the same folder.")
@click.option("--scan-cases", default="all", show_default=True, metavar="NUMBERS", help="Patients of --scans to use.")
@click.option(
    "--organ", type=click.IntRange(1, 255), help="Label value of the pancreas in --scans. Default: any but 0."
)
@click.option("--without-organ", is_flag=True, help="Also measure the parts of the scans above and below the pancreas.")
@click.option("--negatives", type=PATH, metavar="NPZ", help="Slices without pancreas.")
@click.option("--backends", default="onnxruntime", show_default=True, help="The first is scored, all are compared.")
@click.option("--precisions", default="fp32", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--resamples", type=click.IntRange(100), default=2000, show_default=True, help="Bootstrap resamples.")
@click.option("--pictures", type=PATH, metavar="FOLDER", help="Draw every patient, and a sheet of the worst.")
@click.option("-o", "--output", type=PATH, help="JSON lines.")
@click.option("--append", is_flag=True, help="Keep existing lines.")
@click.pass_context
def main(
    context: click.Context,
    bundle: Path,
    slices: Path | None,
    cases: str,
    scans: tuple[Path, Path] | None,
    scan_cases: str,
    organ: int | None,
    without_organ: bool,
    negatives: Path | None,
    backends: str,
    precisions: str,
    seed: int,
    resamples: int,
    pictures: Path | None,
    output: Path | None,
    append: bool,
) -> None:
    """Measure how well BUNDLE finds the pancreas in real patients."""

    def say(text: str) -> None:
        click.echo(text, err=True)

    try:
        chosen = [*_slices(slices, cases), *_scans(scans, scan_cases, organ)]
        if not chosen and negatives is None:
            raise UsageError("nothing to measure; pass --slices, --scans or --negatives")
        if without_organ and scans is None:
            raise UsageError("--without-organ needs whole scans; pass some with --scans")
        if output is not None:
            check_file(output, overwrite=True)
        arms = arm_names(backends, precisions)
        plan = Plan(bundle, chosen, arms, without_organ, negatives, Bootstrap(seed, resamples))
        results, gallery = Results(output, append=append), Gallery(pictures)
        run_plan(plan, results, gallery, say)
        click.echo("\n".join(model_card(results.lines)))
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def run_plan(plan: Plan, results: Results, gallery: Gallery, say: Callable[[str], None]) -> None:
    """Measure all of a plan; a patient that cannot be read stops it, since means would be of other patients.

    Raises:
        CascadeError: A file, the bundle or an engine cannot be used.
    """
    bundle = read_bundle(plan.bundle)
    with ExitStack() as stack:
        cascades, left_out = open_arms(bundle, plan.arms, stack, say)
        first = next(iter(cascades.values()))
        results.add(machine_line(bundle, cascades.values()))
        for name, reason in left_out.items():
            results.add({"kind": "left_out", "engine": name, "reason": reason})
        measured = []
        for number, case in enumerate(plan.cases, start=1):
            say(f"{number} of {len(plan.cases)} {case.name} ...")
            result = measure_case(case, cascades, gallery.add)
            measured.append(result)
            results.add(result.line)
            say(f"  {_sentence(result.line)}")
        if plan.without_organ:
            _measure_parts(plan, first, results, say)
        if plan.negatives is not None:
            say(f"{plan.negatives.stem} ...")
            results.add(measure_negatives(read_negatives(plan.negatives), first))
    for line in summary_lines(measured, plan.bootstrap):
        results.add(line)
    gallery.close()


def _measure_parts(plan: Plan, cascade: Cascade, results: Results, say: Callable[[str], None]) -> None:
    scans = [case for case in plan.cases if case.set == "scans"]
    for case in scans:
        for line in measure_without_organ(read_patient(case), cascade):
            results.add(line)
            say(f"{case.name} {line['part']} the pancreas: {line['false_ml']:.1f} ml in {line['slices']} slices")
    parts = results.of_kind("without_organ")
    if parts:
        results.add(summary_without_organ(parts))


def _slices(folder: Path | None, numbers: str) -> list[Case]:
    return [] if folder is None else choose_cases(find_slices(folder), _wanted(numbers))


def _scans(folders: tuple[Path, Path] | None, numbers: str, organ: int | None) -> list[Case]:
    return [] if folders is None else choose_cases(find_scans(*folders, organ), _wanted(numbers))


def _wanted(numbers: str) -> str | None:
    return None if numbers == "all" else numbers


def _sentence(line: Line) -> str:
    """One patient as a line to read."""
    dice = ", ".join(f"{kept} {scores['dice']:.3f}" for kept, scores in line["masks"].items())
    seconds = " ".join(f"{name} {value:.1f} s" for name, value in line["seconds"].items())
    return f"{line['slices']} slices, Dice {dice} ({seconds})"


if __name__ == "__main__":
    main()
