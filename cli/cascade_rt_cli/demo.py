"""`cascade-rt demo`: segment patient slices and a synthetic scan, with reports and pictures."""

from pathlib import Path

import click

from cascade_rt.engines import BackendChoice
from cascade_rt_cli.options import BUNDLE, PATH, backend_option, shape_option


@click.command()
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("out/demo"),
    show_default=True,
    metavar="FOLDER",
    help="Where the files go; those of an earlier demo are replaced.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=10_001, show_default=True, help="Another seed is another phantom."
)
@shape_option
@click.option(
    "--bundle",
    type=BUNDLE,
    metavar="BUNDLE",
    help="Segment both with this bundle, as of infer. Default: the patients with the one that infer takes, the phantom "
    "with the one trained on phantoms.",
)
@backend_option
def demo(output: Path, seed: int, shape: tuple[int, int, int], bundle: Path | None, backend: BackendChoice) -> None:
    """Segment slices of real patients, then a synthetic scan with a tumor, and draw what was found.

    The six slices come with the package, each of another patient, with the outline that an expert drew of the pancreas
    (NIH Pancreas-CT, CC BY 3.0). The phantom is made, with its true label. No embedded bundle was trained on these
    slices, nor on phantoms of seeds from 10000 on.

    FOLDER then holds patient.nii.gz and phantom.nii.gz, of both the _label.nii.gz, and as from infer the mask
    _seg.nii.gz, the report _seg.json and the picture _seg.png. The patients' slices are no whole scan: of them
    volumes mean nothing, and infer needs --assume-hu, for what lies below 0 HU was lost before they came here.
    """
    from cascade_rt_cli.demo_scan import run_demo

    run_demo(output, seed, shape, bundle, backend)
