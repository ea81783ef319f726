"""`cascade-rt export`: convert a checkpoint to a bundle and, on request, compile its engines."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cascade_rt.bundles.bundle import Bundle, is_bundle, read_bundle
from cascade_rt.common.tensors import STAGES
from cascade_rt.config import Islands
from cascade_rt.engines.nvidia import require_gpu
from cascade_rt.engines.tensorrt_api import import_tensorrt
from cascade_rt.errors import EngineBuildError, UsageError
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.bundle import print_bundle
from cascade_rt_cli.console import print_rows, results_console, spinner
from cascade_rt_cli.messages import needs_extra, shown
from cascade_rt_cli.options import (
    PATH,
    EngineChoice,
    FiniteFloat,
    calibrate_option,
    device_option,
    limits_option,
    scan_options,
)
from cascade_rt_cli.output import print_note
from cascade_rt_cli.plans import plans, shown_builds

if TYPE_CHECKING:
    from cascade_rt.training.checkpoint import Checkpoint
    from cascade_rt_export.trt_build import EngineFacts


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="BUNDLE", help="Folder of the bundle.")
@click.option("--name", help="Name of the bundle in reports. Default: the name of its folder.")
@click.option(
    "--fp16/--no-fp16",
    "half",
    default=None,
    help="Add graphs in half precision; fail if they exceed their limits.  [default: add them unless they do]",
)
@click.option(
    "--search",
    is_flag=True,
    help="Keep in float32 only the planned nodes that the masks depend on; tries up to 32 graphs per stage.",
)
@calibrate_option
@limits_option
@click.option(
    "--engine",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="Also compile engines: TensorRT for the GPU of this machine, into its cache; TensorRT-RTX for any supported "
    "GPU, into the folder BUNDLE.tensorrt-rtx.",
)
@click.option(
    "--compute-capability",
    metavar="X.Y",
    help="GPU to compile for, such as 8.9; only with tensorrt-rtx.  [default: all that it supports]",
)
@device_option
@click.option(
    "--corner-grid",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Align crop corners to multiples of this, a divisor of the grid of their sides.  [default: as trained]",
)
@click.option(
    "--islands",
    type=click.Choice(["all", "largest"]),
    help="Pieces of a mask to keep, pancreas and tumor together.  [default: as trained]",
)
@click.option(
    "--least-island-ml",
    type=FiniteFloat(min=0),
    metavar="ML",
    help="Drop pieces smaller than this, except at the ends of a scan.  [default: as trained]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle and its engines.")
@scan_options
@needs_extra("export")
def export(
    checkpoint: Path,
    output: Path,
    name: str | None,
    half: bool | None,
    search: bool,
    scans: tuple[Path, ...],
    limits: Path | None,
    engine: EngineChoice | None,
    compute_capability: str | None,
    device: int,
    corner_grid: int | None,
    islands: Islands | None,
    least_island_ml: float | None,
    overwrite: bool,
    reading: ScanOptions,
) -> None:
    """Export a trained cascade to a bundle: ONNX graphs in float32 and half precision, the weights, a manifest.

    CHECKPOINT is the folder of a run, whose last epoch is used, a single checkpoint, such as its best.safetensors, or a
    bundle, to export it again with this version or with different --islands or --corner-grid; float32 graphs that were
    exported by the same versions are reused. Each graph is compared with PyTorch on unseen inputs, and the whole
    cascade on slices of the calibration scans. If a float32 probability differs by more than 1e-4, or the float32 masks
    have a Dice below 0.999 with those of PyTorch, nothing is written and the exit code is 5. If the half-precision
    masks do, the bundle is written without half precision, with a warning; --fp16 makes that an error too.

    \b
    Examples:
      cascade-rt export runs/first -o bundles/first --calibrate scan1.nii.gz --calibrate scan2.nii.gz
      cascade-rt export runs/first/best.safetensors -o bundles/best --no-fp16
      cascade-rt export bundles/best -o bundles/steady --corner-grid 32
      cascade-rt export bundles/best -o bundles/whole --islands largest --least-island-ml 2
      cascade-rt export runs/first -o bundles/first --engine tensorrt-rtx --compute-capability 8.9
    """  # noqa: D301
    from cascade_rt_export.bundle_export import export_bundle
    from cascade_rt_export.calibration import scan_calibration
    from cascade_rt_export.gate import read_limits

    _check_engine(engine, compute_capability, device)
    trained = _load(checkpoint, corner_grid, islands, least_island_ml)
    calibration = scan_calibration(scans, reading) if scans else None
    print_note(f"exporting a cascade trained on {trained.data}, {trained.epochs_done} epochs")
    with spinner() as say:
        bundle = export_bundle(
            trained,
            output,
            name=name,
            overwrite=overwrite,
            half=half is not False,
            require_half=half is True,
            search=search,
            calibration=calibration,
            graphs_of=read_bundle(checkpoint) if is_bundle(checkpoint) else None,
            limits=read_limits(limits),
            on_step=say,
        )
    _print_exported(bundle)
    _compile_engines(bundle, engine, compute_capability, device, overwrite=overwrite)


def _load(path: Path, corner_grid: int | None, islands: Islands | None, least_island_ml: float | None) -> "Checkpoint":
    """Load what was trained, with the requested values in place of those from training."""
    from cascade_rt.training.initial import load_initial

    trained = load_initial(path)
    config = trained.cascade
    crop = config.crop if corner_grid is None else replace(config.crop, corner_grid=corner_grid)
    config = replace(
        config,
        crop=crop,
        islands=config.islands if islands is None else islands,
        least_island_ml=config.least_island_ml if least_island_ml is None else least_island_ml,
    )
    return replace(trained, cascade=config)


def _print_exported(bundle: Bundle) -> None:
    print_bundle(bundle)
    left_out = bundle.manifest.parity.get("half_precision_left_out")
    if left_out is not None:
        print_note(f"cascade-rt: warning: the bundle has float32 only; half precision was left out: {left_out}")


def _check_engine(engine: EngineChoice | None, compute_capability: str | None, device: int) -> None:
    """Check before the export that engines can be compiled after it.

    Raises:
        UsageError: A compute capability is given for an engine other than TensorRT-RTX, or a GPU for one other than
            TensorRT, or no GPU has this number.
        BackendUnavailableError: The package, or for TensorRT the GPU, is missing.
    """
    if compute_capability is not None and engine != "tensorrt-rtx":
        raise UsageError("--compute-capability needs --engine tensorrt-rtx; TensorRT builds for this machine's GPU")
    if device > 0 and engine != "tensorrt":
        raise UsageError("--device needs --engine tensorrt, which builds for a GPU of this machine")
    if engine == "tensorrt":
        require_gpu("tensorrt", device)
        import_tensorrt("tensorrt")
    elif engine == "tensorrt-rtx":
        import_tensorrt("tensorrt_rtx")


def _compile_engines(
    bundle: Bundle, engine: EngineChoice | None, compute_capability: str | None, device: int, *, overwrite: bool
) -> None:
    """Compile an engine from each graph.

    Raises the errors of `open_engine` and `write_plans`, and EngineBuildError if a precision is not proven.
    """
    if engine is None:
        return
    if engine == "tensorrt":
        for precision in bundle.precisions:
            for stage in STAGES:
                plan = plans(bundle, stage, precision, device)
                if plan.doubt:
                    raise EngineBuildError(plan.doubt)
        return
    from cascade_rt.engines.engine_cache import BuildOptions
    from cascade_rt_export.plans import write_plans

    folder = bundle.path.with_name(f"{bundle.path.name}.tensorrt-rtx")
    options = BuildOptions(compute_capability=compute_capability)
    with shown_builds() as on_build:
        facts = write_plans(bundle, folder, options, overwrite=overwrite, on_build=on_build)
    print_rows(results_console(), _rows(folder, facts))


def _rows(folder: Path, facts: Iterable["EngineFacts"]) -> Iterator[tuple[str, str]]:
    for found in facts:
        shares = found.shares
        yield (
            "engine",
            f"{found.stage} in {found.precision}: {shares.half:.0%} of convolution work in half precision, "
            f"{shares.single:.0%} in float32, according to the {found.proven_by} of TensorRT-RTX {found.version}",
        )
    yield "engines", shown(folder)
