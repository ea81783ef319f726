"""Options that several commands share."""

import math
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click

from cascade_rt.common.tensors import ENGINE_PRECISIONS
from cascade_rt.engines import BACKENDS, BackendChoice, EngineRequest, PrecisionChoice
from cascade_rt.scans.nifti.options import MAX_VOXELS, ScanOptions
from cascade_rt_cli.plans import plans


class _BundlePath(click.Path):
    """The folder of a bundle, or the name of an embedded bundle."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        from cascade_rt.bundles.bundle import find_bundle

        return super().convert(find_bundle(value), param, ctx)


class FiniteFloat(click.FloatRange):
    """A finite number in a range. NaN and infinity are rejected."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a number, or fail with a click usage error if it is not a finite number in the range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


PATH = click.Path(path_type=Path)
BUNDLE = _BundlePath(path_type=Path)
EngineChoice = Literal["tensorrt", "tensorrt-rtx"]
"""Engines that can be compiled on export."""

bundle_option = click.option(
    "--bundle",
    type=BUNDLE,
    metavar="BUNDLE",
    help="Folder of the bundle to run, or the name of an embedded one: patients, patients-tumor or phantom. A "
    "local folder of that name takes precedence. Default: patients; not for clinical use.",
)
signature_option = click.option(
    "--require-signature",
    "public_key",
    type=PATH,
    metavar="PUB.pem",
    help="Run the bundle only if the owner of this key has signed it (see: cascade-rt bundle).",
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", *BACKENDS]),
    default="auto",
    show_default=True,
    help="Library that runs the networks. auto: the best that runs here; the output says which, and why no better one.",
)
_precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", *ENGINE_PRECISIONS]),
    default="auto",
    show_default=True,
    help="Numeric precision. auto: fp16 on a GPU, fp32 on a CPU; bf16 is faster on a CPU, and close to fp32.",
)
device_option = click.option(
    "--device",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Number of the GPU, as doctor lists them. Backends that run on the CPU ignore it.",
)
calibrate_option = click.option(
    "--calibrate",
    "scans",
    type=PATH,
    multiple=True,
    metavar="SCAN",
    help="A scan to plan half precision and compare on; may be given several times. Default: slices in the package.",
)
limits_option = click.option(
    "--limits",
    type=PATH,
    metavar="TOML",
    help="File with limits: tables [fp32], [fp16] and [bf16] with max_error, mean_error, least_dice, slot_error.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing results.")
shape_option = click.option(
    "--shape",
    type=click.IntRange(min=16),
    nargs=3,
    default=(96, 512, 512),
    show_default=True,
    metavar="Z ROW COL",
    help="Slices, rows and columns of a phantom.",
)
scattered_option = click.option(
    "--scattered",
    is_flag=True,
    help="The slices of a scan are not adjacent: nothing is judged across them, and no islands are dropped.",
)
_LARGEST_OFFSET = 1 << 16
"""Largest possible offset of 16-bit values, in HU."""
_SCAN_OPTIONS = (
    click.option("--volume", type=click.IntRange(min=0), metavar="K", help="Volume of a 4D file to use, from 0."),
    click.option(
        "--assume-orientation",
        metavar="AXES",
        help="Axis directions of a file that does not state them, such as LPS: to left, posterior, superior.",
    ),
    click.option("--assume-hu", is_flag=True, help="Treat the values as Hounsfield units, whatever they look like."),
    click.option(
        "--hu-offset",
        type=click.IntRange(-_LARGEST_OFFSET, _LARGEST_OFFSET),
        default=0,
        metavar="HU",
        help="Add this to every value, such as -1024.",
    ),
    click.option(
        "--max-voxels",
        type=click.IntRange(min=1),
        default=MAX_VOXELS,
        show_default=True,
        metavar="N",
        help="Refuse larger scans.",
    ),
    click.option("--strict", is_flag=True, help="Refuse files whose qform and sform differ by more than 5 mm."),
    scattered_option,
    click.option(
        "--series",
        metavar="UID|N",
        help="CT series of a DICOM study to read, by UID or number. Without it, several are listed and refused.",
    ),
)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --backend, --precision and --device to a command, passed as one argument `engines`, an `EngineRequest`."""

    @wraps(command)
    def with_engines(*, backend: BackendChoice, precision: PrecisionChoice, device: int, **others: Any) -> None:
        command(**others, engines=EngineRequest(backend, precision, plans, device))

    return backend_option(_precision_option(device_option(with_engines)))


def scan_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for reading scans to a command, passed as one argument `reading`, a `ScanOptions`."""

    @wraps(command)
    def with_reading(
        *,
        volume: int | None,
        assume_orientation: str | None,
        assume_hu: bool,
        hu_offset: int,
        max_voxels: int,
        strict: bool,
        scattered: bool,
        series: str | None,
        **others: Any,
    ) -> None:
        reading = ScanOptions(volume, assume_orientation, assume_hu, hu_offset, max_voxels, strict, scattered, series)
        command(**others, reading=reading)

    for option in reversed(_SCAN_OPTIONS):
        with_reading = option(with_reading)
    return with_reading
