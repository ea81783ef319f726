"""Can a bundle tell a pancreas with a tumor from one without?

    python -m benchmarks.tumor_crops BUNDLE tumour_crops.zip --healthy NIH_FOLDER -o results.jsonl

Crops of MSD patients, all with a tumor, against crops of healthy NIH patients. They come from two hospitals, so what
tells them apart need not be a tumor. So it is also measured how far noise, brightness and size go alone, what is left
after these are matched, and how well synthetic tumors are seen in patients of one hospital. JSON lines, each written
as soon as it is known, and a table on standard output.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np

from benchmarks.patients.__main__ import TEST_PATIENTS
from benchmarks.patients.cases import Patient, choose_cases, find_slices, read_patient
from benchmarks.patients.results import Line, Results, machine_line
from benchmarks.synthetic_tumors import read_tumor_bundle
from benchmarks.tumor_crops.crops import Crop, cut_crops, read_crops
from benchmarks.tumor_crops.matching import CONFOUNDERS, matched
from benchmarks.tumor_crops.placing import Placed, fillings
from benchmarks.tumor_crops.roc import by_patient, figures
from benchmarks.tumor_crops.scoring import score
from cascade_rt.common.outputs import check_file
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.engines import Backend, open_engines
from cascade_rt.errors import CascadeError
from cascade_rt.run.cascade import Cascade

PATH = click.Path(path_type=Path)
Say = Callable[[str], None]


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("crops", type=PATH)
@click.option(
    "--healthy",
    type=PATH,
    metavar="FOLDER",
    help=f"Labelled slices of healthy patients (subfolders images and labels); {TEST_PATIENTS} are used.",
)
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of bootstrap, noise and synthetic tumors.")
@click.option("-o", "--output", type=PATH, help="JSON lines.")
@click.pass_context
def main(
    context: click.Context,
    bundle: Path,
    crops: Path,
    healthy: Path | None,
    backend: Backend,
    seed: int,
    output: Path | None,
) -> None:
    """Measure how well BUNDLE tells the CROPS with a tumor from those without."""

    def say(text: str) -> None:
        click.echo(text, err=True)

    try:
        if output is not None:
            check_file(output, overwrite=True)
        run(bundle, crops, healthy, backend, seed, Results(output, append=False), say)
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def run(
    bundle_path: Path, zip_path: Path, folder: Path | None, backend: Backend, seed: int, results: Results, say: Say
) -> None:
    """Measure all of it.

    Raises:
        CascadeError: A file, the bundle or an engine cannot be used, or the bundle does not look for tumors.
    """
    crops = read_crops(zip_path)
    cases = [] if folder is None else choose_cases(find_slices(folder), TEST_PATIENTS)
    patients = [read_patient(case) for case in cases]
    bundle = read_tumor_bundle(bundle_path)
    config = bundle.manifest.config
    with ExitStack() as stack:
        engines = stack.enter_context(open_engines(bundle, backend))
        results.add(machine_line(bundle, [Cascade(bundle, engines)]))

        def measure(kind: str, filling: str, group: Sequence[Crop], place: Callable[[Crop], Placed]) -> None:
            say(f"{kind}, {filling}: {len(group)} crops ...")
            for line in compare(group, score(group, place, engines, config), seed):
                results.add({"kind": kind, "filling": filling, **line})
                say(f"  {sentence(line)}")

        for name, confounder in CONFOUNDERS.items():
            (line, *_) = compare(crops, [confounder(crop) for crop in crops], seed)
            results.add({"kind": "confounder", "score": name, **line})
            say(f"{name}: {sentence(line)}")
        ways = fillings(patients)
        for filling, place in ways.items():
            measure("as_stored", filling, crops, place)
        equal = matched(crops, np.random.default_rng(seed))
        for filling, place in ways.items():
            measure("matched", filling, equal, place)
        made = _made(patients, seed)
        for filling, place in ways.items() if made else ():
            measure("synthetic", filling, made, place)
    click.echo("\n".join(table(results.lines)))


def compare(crops: Sequence[Crop], scores: Sequence[float], seed: int) -> list[Line]:
    """The figures of all crops, then of the small, the middle and the large third of the boxes."""
    edges = np.quantile([crop.area for crop in crops], [1 / 3, 2 / 3])
    third = np.searchsorted(edges, [crop.area for crop in crops], side="right")
    lines = []
    for size, wanted in (("all", {0, 1, 2}), ("small", {0}), ("middle", {1}), ("large", {2})):
        chosen = [index for index in range(len(crops)) if third[index] in wanted]
        groups = []
        for has_tumor in (True, False):
            members = [index for index in chosen if crops[index].has_tumor == has_tumor]
            groups.append(by_patient([crops[index].patient for index in members], [scores[index] for index in members]))
        ill, healthy = groups
        if not ill or not healthy:
            continue
        counts = {
            "crops_with_tumor": sum(map(len, ill.values())),
            "crops_without": sum(map(len, healthy.values())),
            "patients_with_tumor": len(ill),
            "patients_without": len(healthy),
        }
        lines.append({"boxes": size, **counts, **figures(ill, healthy, seed=seed)})
    return lines


def _made(patients: Sequence[Patient], seed: int) -> list[Crop]:
    """Crops of healthy patients, each with and without a synthetic tumor."""
    random = np.random.default_rng(seed)
    return [crop for pair in cut_crops(patients, TumorRecipe(), random) for crop in pair]


def sentence(line: Line) -> str:
    """One line of results, to read."""
    area, patients = line["area_crops"], line["area_patients"]
    return (
        f"{line['boxes']} boxes: area under the curve {_shown(area)} by crop, {_shown(patients)} by patient,"
        f" sensitivity {_shown(line['sensitivity_crops'])} at one false alarm in ten"
    )


def table(lines: Sequence[Line]) -> list[str]:
    """The figures of all boxes as a table in Markdown."""
    rows = [
        "| crops | margin | area by crop | area by patient | sensitivity at one false alarm in ten |",
        "| --- | --- | --- | --- | --- |",
    ]
    for line in lines:
        if line.get("boxes") == "all":
            what = line["score"] if line["kind"] == "confounder" else line["kind"].replace("_", " ")
            shown = [_shown(line[name]) for name in ("area_crops", "area_patients", "sensitivity_crops")]
            rows.append(f"| {what} | {line.get('filling', '')} | {' | '.join(shown)} |")
    return rows


def _shown(figure: Line) -> str:
    low, high = figure["interval_95"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
