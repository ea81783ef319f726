"""Which parts of a synthetic tumor matter? Trains without each of them, and measures on synthetic and real tumors.

    python -m benchmarks.tumor_ablation configs base.toml folder
    cascade-rt train --dataset folder STORE -o folder/no_edge --config folder/no_edge.toml --init RUN     # each of them
    python -m benchmarks.tumor_ablation measure folder/* --crops tumour_crops.zip --healthy NIH_FOLDER -o results.jsonl

The second stage of each run is measured alone, with PyTorch, on the true box of the pancreas: the runs are short, and
what stage 1 finds is the same in all of them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.machine import commit, processor_name
from benchmarks.patients.__main__ import TEST_PATIENTS
from benchmarks.patients.cases import Patient, choose_cases, find_slices, read_patient
from benchmarks.patients.results import Line, Results
from benchmarks.synthetic_tumors import FALSE_LESION_MM2, Made, make_tumors
from benchmarks.tumor_crops.crops import Crop, read_crops
from benchmarks.tumor_crops.placing import Placed, fillings
from benchmarks.tumor_crops.roc import by_patient, figures
from cascade_rt.common.metrics import confusion
from cascade_rt.common.outputs import check_file
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.errors import CascadeError
from cascade_rt.models.cascade_model import CascadeModel, tumor_maps
from cascade_rt.models.crop import crop as cut
from cascade_rt.models.crop import plan_mask_box
from cascade_rt.models.hu_window import apply_window
from cascade_rt.training.checkpoint import load_checkpoint

PATH = click.Path(path_type=Path)
_NOTHING = "[0.0, 0.0]"
_TEXTURE = {"mottle_hu": _NOTHING, "necrosis_share": "0.0"}
_EDGE = {"edge_mm": "[0.1, 0.1]"}
_COMPANIONS = {"duct_share": "0.0", "atrophy_share": "0.0"}
_SHAPE = {"lobed_share": "0.0", "push": _NOTHING, "overhang": _NOTHING}
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "all": {},
    "no_texture": _TEXTURE,
    "no_edge": _EDGE,
    "no_duct_or_atrophy": _COMPANIONS,
    "size_only": _TEXTURE | _EDGE | _COMPANIONS | _SHAPE,
}
"""What `[train.tumor_recipe]` says in each."""
Probability = Callable[[npt.NDArray[np.generic], npt.NDArray[np.bool_]], npt.NDArray[np.float32]]
"""From HU and the pancreas `[row, col]` to the tumor probability `[row, col]`, 0 outside the box of the pancreas."""


@click.group()
def main() -> None:
    """Find out which parts of a synthetic tumor matter."""


@main.command()
@click.argument("base", type=PATH)
@click.argument("folder", type=PATH)
def configs(base: Path, folder: Path) -> None:
    """Write a config for each variant of BASE, which has no [train.tumor_recipe], to FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, changes in VARIANTS.items():
        lines = [f"{parameter} = {value}" for parameter, value in changes.items()]
        text = "\n".join([base.read_text(), "[train.tumor_recipe]", *lines, ""])
        (folder / f"{name}.toml").write_text(text)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option("--crops", required=True, type=PATH, help="Crops with and without real tumors (zip).")
@click.option("--healthy", required=True, type=PATH, metavar="FOLDER", help=f"Labelled slices; uses {TEST_PATIENTS}.")
@click.option("--per-patient", type=click.IntRange(min=1), default=3, show_default=True, help="Crops of each patient.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the tumors and the bootstrap.")
@click.option("-o", "--output", type=PATH, help="JSON lines.")
@click.pass_context
def measure(
    context: click.Context,
    runs: tuple[Path, ...],
    crops: Path,
    healthy: Path,
    per_patient: int,
    seed: int,
    output: Path | None,
) -> None:
    """Measure the second stage of each of the RUNS, folders of `cascade-rt train`."""
    try:
        if output is not None:
            check_file(output, overwrite=True)
        results = Results(output, append=False)
        results.add({"kind": "machine", "processor": processor_name(), "torch": torch.__version__, "commit": commit()})
        patients = [read_patient(case) for case in choose_cases(find_slices(healthy), TEST_PATIENTS)]
        real = first_of_each_patient(read_crops(crops), per_patient)
        for run in runs:
            results.add(measure_run(run, patients, real, seed))
            click.echo(_sentence(results.lines[-1]))
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def measure_run(run: Path, patients: list[Patient], crops: list[Crop], seed: int) -> Line:
    """Measure one run: Dice of synthetic tumors, healthy slices with a false lesion, real tumors by each filling."""
    checkpoint = load_checkpoint(run)
    find = stage2_alone(checkpoint.build_model().eval())
    dice = [
        value
        for number, patient in enumerate(patients, start=1)
        for value in _dice(make_tumors(patient, TumorRecipe(), np.random.default_rng((seed, number))), find)
    ]
    false = [value for patient in patients for value in _has_false_lesion(patient, find)]
    line: Line = {
        "kind": "run",
        "run": run.name,
        "epochs": checkpoint.epochs_done,
        "synthetic_tumors": len(dice),
        "dice": float(np.mean(dice)),
        "healthy_slices": len(false),
        "with_false_lesion": float(np.mean(false)),
    }
    for filling, place in fillings(patients).items():
        scores = {
            has_tumor: by_patient(
                [crop.patient for crop in crops if crop.has_tumor == has_tumor],
                [_largest(place(crop), find) for crop in crops if crop.has_tumor == has_tumor],
            )
            for has_tumor in (True, False)
        }
        line[filling] = figures(scores[True], scores[False], seed=seed)
    return line


def first_of_each_patient(crops: Sequence[Crop], count: int) -> list[Crop]:
    """Return the first crops of each patient, at most `count` of each."""
    seen: Counter[str] = Counter()
    chosen = []
    for crop in crops:
        seen[crop.patient] += 1
        if seen[crop.patient] <= count:
            chosen.append(crop)
    return chosen


def stage2_alone(model: CascadeModel) -> Probability:
    """Return the second stage as a function, fed with the plain image in the box of the pancreas and its margin."""

    def find(hu: npt.NDArray[np.generic], organ: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        box = plan_mask_box(organ, model.config.crop)
        found = np.zeros(organ.shape, dtype=np.float32)
        if box is None:
            return found
        with torch.inference_mode():
            image = apply_window(torch.from_numpy(cut(hu.astype(np.float32), box)), model.config.window_hu)
            maps = tumor_maps(model.stage2, image[None, None])
            height, width = box.inside(organ.shape)
            found[box.slices] = torch.sigmoid(maps[-1])[0, 0, :height, :width].numpy()
        return found

    return find


def _largest(placed: Placed, find: Probability) -> float:
    inside = np.zeros(placed.hu.shape, dtype=bool)
    inside[placed.box] = True
    return float(find(placed.hu, inside)[placed.box].max())


def _dice(made: Made, find: Probability) -> list[float]:
    organs = made.label > 0
    return [
        confusion(find(hu, organ) >= 0.5, tumor).dice
        for hu, organ, tumor in zip(made.hu, organs, made.tumor, strict=True)
    ]


def _has_false_lesion(patient: Patient, find: Probability) -> list[bool]:
    volume = patient.volume
    least = FALSE_LESION_MM2 / (volume.spacing_mm[1] * volume.spacing_mm[2])
    return [
        bool(np.count_nonzero(find(hu, organ) >= 0.5) >= least)
        for hu, organ in zip(volume.voxels, patient.truth, strict=True)
        if organ.any()
    ]


def _sentence(line: Line) -> str:
    areas = ", ".join(
        f"{name} {line[name]['area_patients']['value']:.3f}" for name in ("mirror", "fat", "patient") if name in line
    )
    return (
        f"{line['run']}: mean Dice {line['dice']:.3f} of {line['synthetic_tumors']} synthetic tumors, false lesions in"
        f" {line['with_false_lesion']:.0%} of {line['healthy_slices']} healthy slices; area by patient: {areas}"
    )


if __name__ == "__main__":
    main()
