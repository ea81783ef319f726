"""`cascade-rt demo`: a synthetic scan, its mask, its report and a picture."""

from pathlib import Path

import click

from cascade_rt.engines import BackendChoice
from cascade_rt_cli.options import PATH, backend_option, bundle_option, shape_option


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
    "--seed", type=click.IntRange(min=0), default=10_001, show_default=True, help="Another seed is another patient."
)
@shape_option
@bundle_option
@backend_option
def demo(output: Path, seed: int, shape: tuple[int, int, int], bundle: Path | None, backend: BackendChoice) -> None:
    """Make a synthetic CT scan, segment it, and draw what was found.

    FOLDER then holds phantom.nii.gz, its true label, the mask, the report and preview.png. The embedded bundle was
    never trained on seeds from 10000 on.
    """
    from cascade_rt_cli.demo_scan import run_demo

    run_demo(output, seed, shape, bundle, backend)
