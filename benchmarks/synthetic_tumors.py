"""How well does a bundle find synthetic tumors in slices of healthy patients, and what does it find without them?

    python -m benchmarks.synthetic_tumors BUNDLE NIH_FOLDER -o results.jsonl

Each slice of the test patients goes through the exported bundle twice: with one tumor made as in training, and as it
is. Synthetic tumors are what the bundle was trained on; what this says of real ones is nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from benchmarks.patients.__main__ import TEST_PATIENTS
from benchmarks.patients.cases import Patient, choose_cases, find_slices, read_patient
from benchmarks.patients.measure import plain
from benchmarks.patients.results import Line, Results, machine_line
from benchmarks.patients.scores import Bootstrap, ratio_over_patients
from cascade_rt.bundles.bundle import Bundle, read_bundle
from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.metrics import confusion
from cascade_rt.common.outputs import check_file
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.data.synthetic_tumor import add_tumor
from cascade_rt.engines import Backend, open_engines
from cascade_rt.errors import CascadeError, UsageError
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.volume import Volume

PATH = click.Path(path_type=Path)
LARGE_MM = 15.0
"""Tumors with a larger section than a circle of this diameter are also counted alone."""
FALSE_LESION_ML = 0.5
FALSE_LESION_MM2 = math.pi * (3 * FALSE_LESION_ML * 1000 / (4 * math.pi)) ** (2 / 3)
"""The largest section of a ball of that volume: single slices have areas."""


@dataclass(frozen=True, eq=False, slots=True)
class Made:
    """The slices of one patient in which a tumor could be made."""

    patient: Patient
    slices: tuple[int, ...]
    hu: npt.NDArray[np.int16]
    """`[slice, row, col]`, with the tumors."""
    label: npt.NDArray[np.uint8]
    """`[slice, row, col]`: 1 pancreas, 2 tumor."""

    @property
    def tumor(self) -> npt.NDArray[np.bool_]:
        """`[slice, row, col]`."""
        return self.label == TUMOR_LABEL


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("folder", type=PATH)
@click.option("--cases", default=TEST_PATIENTS, show_default=True, metavar="NUMBERS", help="Patients of FOLDER to use.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the tumors and the bootstrap.")
@click.option("-o", "--output", type=PATH, help="JSON lines.")
@click.pass_context
def main(
    context: click.Context, bundle: Path, folder: Path, cases: str, backend: Backend, seed: int, output: Path | None
) -> None:
    """Measure BUNDLE on synthetic tumors in the labelled slices of FOLDER (subfolders images and labels)."""
    try:
        if output is not None:
            check_file(output, overwrite=True)
        run(bundle, folder, cases, backend, seed, Results(output, append=False))
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def run(bundle_path: Path, folder: Path, numbers: str, backend: Backend, seed: int, results: Results) -> None:
    """Measure all patients.

    Raises:
        CascadeError: A file, the bundle or an engine cannot be used, or the bundle does not look for tumors.
    """
    bundle = read_tumor_bundle(bundle_path)
    cases = choose_cases(find_slices(folder), numbers)
    with Cascade(bundle, open_engines(bundle, backend)) as cascade:
        results.add(machine_line(bundle, [cascade]))
        for number, case in enumerate(cases, start=1):
            patient = read_patient(case)
            made = make_tumors(patient, TumorRecipe(), np.random.default_rng((seed, number)))
            results.add(measure_patient(made, cascade))
            click.echo(f"{number} of {len(cases)} {sentence(results.lines[-1])}", err=True)
    for line in summaries(results.of_kind("case"), Bootstrap(seed)):
        results.add(line)
        click.echo(line["sentence"])


def read_tumor_bundle(path: Path) -> Bundle:
    """Open a bundle that looks for tumors.

    Raises:
        BundleError: It is no bundle, or damaged.
        UsageError: It looks for the pancreas alone.
    """
    bundle = read_bundle(path)
    if bundle.manifest.config.target != "tumor":
        raise UsageError(f"{path}: finds only the pancreas; choose a bundle whose second stage finds tumors")
    return bundle


def make_tumors(patient: Patient, recipe: TumorRecipe, random: np.random.Generator) -> Made:
    """Make one tumor in each slice of a patient that has room for it."""
    slices, images, labels = [], [], []
    for z in np.flatnonzero(patient.truth.any(axis=(1, 2))):
        organ = patient.truth[z][None].astype(np.uint8) * ORGAN_LABEL
        grown = add_tumor(patient.volume.voxels[z][None], organ, patient.volume.spacing_mm, recipe, random)
        if grown is not None:
            slices.append(int(z))
            images.append(grown[0][0])
            labels.append(grown[1][0])
    return Made(patient, tuple(slices), np.array(images), np.array(labels))


def measure_patient(made: Made, cascade: Cascade) -> Line:
    """Segment the slices of a patient with tumors, and all of its slices without."""
    volume = replace(made.patient.volume, scattered=True)
    # From (z, row, col) to the order of files, (col, row, z).
    ill_volume = Volume.from_array(made.hu.T, volume.affine[:, [2, 1, 0, 3]], scattered=True)
    ill = cascade.run(ill_volume).mask == TUMOR_LABEL
    pixel_mm2 = volume.spacing_mm[1] * volume.spacing_mm[2]
    healthy = cascade.run(volume)
    false_mm2 = [lesion.volume_ml / volume.voxel_volume_ml * pixel_mm2 for lesion in healthy.measurements.lesions]
    return {
        "kind": "case",
        "case": made.patient.case.name,
        "diameter_mm": [math.sqrt(4 * np.count_nonzero(tumor) * pixel_mm2 / math.pi) for tumor in made.tumor],
        "dice": [confusion(found, true).dice for found, true in zip(ill, made.tumor, strict=True)],
        "healthy_slices": len(healthy.mask),
        "false_lesions": sum(area >= FALSE_LESION_MM2 for area in false_mm2),
        "false_mm2": false_mm2,
    }


def summaries(cases: Sequence[Line], bootstrap: Bootstrap) -> Iterator[Line]:
    """All patients together."""
    for name, least in (("all", 0.0), ("large", LARGE_MM)):
        chosen = [
            [dice for dice, size in zip(case["dice"], case["diameter_mm"], strict=True) if size > least]
            for case in cases
        ]
        value, interval = ratio_over_patients(list(map(sum, chosen)), list(map(len, chosen)), bootstrap)
        count, missed = sum(map(len, chosen)), sum(dice == 0 for of_case in chosen for dice in of_case)
        yield {
            "kind": "summary",
            "tumors": name,
            "count": count,
            "missed": missed,
            "dice": plain(value),
            "interval_95": [plain(end) for end in interval],
            "sentence": f"{count} tumors{f' above {least:g} mm' if least else ''}: mean Dice {value:.3f}"
            f" ({interval[0]:.3f} to {interval[1]:.3f}), {missed} missed",
        }
    value, interval = ratio_over_patients(
        [case["false_lesions"] for case in cases], [case["healthy_slices"] / 10 for case in cases], bootstrap
    )
    yield {
        "kind": "false_lesions",
        "least_mm2": FALSE_LESION_MM2,
        "per_ten_slices": plain(value),
        "interval_95": [plain(end) for end in interval],
        "sentence": f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f}) false lesions of {FALSE_LESION_MM2:.0f} mm2"
        " or more in ten healthy slices",
    }


def sentence(line: Line) -> str:
    """One patient, to read."""
    return (
        f"{line['case']}: {len(line['dice'])} tumors, mean Dice {np.mean(line['dice'] or [math.nan]):.3f},"
        f" {line['false_lesions']} false lesions in {line['healthy_slices']} healthy slices"
    )


if __name__ == "__main__":
    main()
