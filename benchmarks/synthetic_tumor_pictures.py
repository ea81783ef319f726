"""Draw synthetic tumors: slices of healthy patients, the same with a tumor, and the same with its outline.

python -m benchmarks.synthetic_tumor_pictures NIH_FOLDER tumors.png --cases 1-50 --count 6
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.patients.cases import choose_cases, find_slices, read_patient
from benchmarks.patients.pictures import contact_sheet
from benchmarks.synthetic_tumors import Made, make_tumors
from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.outputs import check_file
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.errors import CascadeError
from cascade_rt.results.slice_panel import around_organ, slice_panel, view_of

PATH = click.Path(path_type=Path)
_SIDE = 260


@click.command()
@click.argument("folder", type=PATH)
@click.argument("picture", type=PATH)
@click.option("--cases", default="1-50", show_default=True, metavar="NUMBERS", help="Patients of FOLDER to use.")
@click.option(
    "--count", type=click.IntRange(1), default=6, show_default=True, help="Number of tumors, one per patient."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--overwrite", is_flag=True)
@click.pass_context
def main(
    context: click.Context, folder: Path, picture: Path, cases: str, count: int, seed: int, overwrite: bool
) -> None:
    """Draw synthetic tumors in the labelled slices of FOLDER (subfolders images and labels) as PICTURE."""
    try:
        check_file(picture, overwrite=overwrite)
        random = np.random.default_rng(seed)
        found = choose_cases(find_slices(folder), cases)
        chosen = random.choice(len(found), min(count, len(found)), replace=False)
        made = [make_tumors(read_patient(found[index]), TumorRecipe(), random) for index in chosen]
        contact_sheet(list(draw([one for one in made if one.slices], random))).save(picture)
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def draw(made: Sequence[Made], random: np.random.Generator) -> Iterator[Image.Image]:
    """Three strips: slices as they are, with a tumor, and with its outline; a column for each patient."""
    columns = [_column(one, int(random.integers(len(one.slices)))) for one in made]
    for row in zip(*columns, strict=True):
        strip = Image.new("RGB", (_SIDE * len(row), _SIDE))
        for place, panel in enumerate(row):
            strip.paste(panel, (_SIDE * place, 0))
        yield strip


def _column(made: Made, number: int) -> Sequence[Image.Image]:
    patient, z = made.patient, made.slices[number]
    spacing = patient.volume.spacing_mm[1:]
    mask = np.where(made.tumor[number], TUMOR_LABEL, patient.truth[z] * ORGAN_LABEL).astype(np.uint8)
    view = view_of(*around_organ(mask, spacing), spacing, _SIDE)
    nothing = np.zeros_like(mask)
    outline = np.where(mask == TUMOR_LABEL, mask, 0).astype(np.uint8)
    return (
        slice_panel(patient.volume.voxels[z], nothing, view, "healthy"),
        slice_panel(made.hu[number], nothing, view, "with tumor"),
        slice_panel(made.hu[number], outline, view, "its outline"),
    )


if __name__ == "__main__":
    main()
