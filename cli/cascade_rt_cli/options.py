"""Options that several commands share."""

from pathlib import Path
from typing import Literal

import click

from cascade_rt.engines import BACKENDS
from cascade_rt.tensors import ENGINE_PRECISIONS

PATH = click.Path(path_type=Path)
EngineChoice = Literal["tensorrt", "tensorrt-rtx"]
"""Engines that can be compiled with a bundle."""

bundle_option = click.option(
    "--bundle",
    type=PATH,
    metavar="BUNDLE",
    help="Folder of the bundle to run. Default: the embedded one, trained on synthetic phantoms, not for clinical use.",
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", *BACKENDS]),
    default="auto",
    show_default=True,
    help="Library that computes. auto: the best that runs here; the output says which, and why not a better one.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", *ENGINE_PRECISIONS]),
    default="auto",
    show_default=True,
    help="Type the networks compute in. auto: on a GPU fp16, on a CPU fp32; bf16: faster there, and near fp32.",
)
calibrate_option = click.option(
    "--calibrate",
    "scans",
    type=PATH,
    multiple=True,
    metavar="SCAN",
    help="A scan to plan half precision on and to compare on; may be given several times. Default: phantoms.",
)
limits_option = click.option(
    "--limits",
    type=PATH,
    metavar="TOML",
    help="File with other limits: tables [fp32], [fp16] and [bf16] of max_error, mean_error, least_dice, slot_error.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace results that are already there.")
shape_option = click.option(
    "--shape",
    type=click.IntRange(min=16),
    nargs=3,
    default=(96, 512, 512),
    show_default=True,
    metavar="Z ROW COL",
    help="Slices, rows and columns of a phantom.",
)
