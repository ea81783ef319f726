"""`cascade-rt export`: convert a checkpoint to a bundle and, on request, compile its engines."""

from dataclasses import replace
from pathlib import Path

import click

from cascade_rt.config import CascadeConfig, Islands
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.options import PATH, EngineChoice, FiniteFloat, calibrate_option, limits_option, scan_options


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="BUNDLE", help="Folder of the bundle.")
@click.option("--name", help="What the bundle is called in reports. Default: the name of its folder.")
@click.option(
    "--fp16/--no-fp16",
    "half",
    default=None,
    help="Add graphs in half precision; fail where they miss their limits.  [default: add them where they do not]",
)
@click.option(
    "--search",
    is_flag=True,
    help="Keep in float32 only those planned nodes without which the masks change; tries up to 32 graphs a stage.",
)
@calibrate_option
@limits_option
@click.option(
    "--engine",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="Compile engines too: of TensorRT for the GPU of this machine, into its cache; of TensorRT-RTX for GPUs that "
    "need not be here, into the folder BUNDLE.tensorrt-rtx.",
)
@click.option(
    "--compute-capability",
    metavar="X.Y",
    help="GPU to compile for, such as 8.9; with tensorrt-rtx only.  [default: all that it knows]",
)
@click.option(
    "--corner-grid",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Corners of crops on multiples of this, a divisor of the grid of their sides.  [default: as trained]",
)
@click.option(
    "--islands",
    type=click.Choice(["all", "largest"]),
    help="Which pieces of a mask the bundle keeps, pancreas and tumor together.  [default: as trained]",
)
@click.option(
    "--least-island-ml",
    type=FiniteFloat(min=0),
    metavar="ML",
    help="Pieces of less than this are dropped, but at the ends of a scan.  [default: as trained]",
)
@click.option("--overwrite", is_flag=True, help="Replace the bundle, and the engines, that are there.")
@scan_options
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
    corner_grid: int | None,
    islands: Islands | None,
    least_island_ml: float | None,
    overwrite: bool,
    reading: ScanOptions,
) -> None:
    """Export a trained cascade to a bundle: ONNX graphs in float32 and half precision, the weights, a manifest.

    CHECKPOINT is the folder of a run, of which the last epoch is taken, one checkpoint, such as its best.safetensors,
    or a bundle, to export it again with this version, or with other --islands or another --corner-grid; the float32
    graphs of a bundle that these versions exported are taken as they are. Each graph is run beside PyTorch on inputs it
    has never seen, and the whole cascade on slices of the scans to calibrate on. If a probability of float32 differs by
    more than 1e-4, or its masks have a Dice below 0.999 with those of PyTorch, nothing is written and the exit code is
    5. If the masks of half precision do, the bundle is written without it, with a warning; --fp16 makes that an error
    too.

    \b
    Examples:
      cascade-rt export runs/first -o bundles/first --calibrate scan1.nii.gz --calibrate scan2.nii.gz
      cascade-rt export runs/first/best.safetensors -o bundles/best --no-fp16
      cascade-rt export bundles/best -o bundles/steady --corner-grid 32
      cascade-rt export bundles/best -o bundles/whole --islands largest --least-island-ml 2
      cascade-rt export runs/first -o bundles/first --engine tensorrt-rtx --compute-capability 8.9
    """  # noqa: D301
    from cascade_rt_cli.optional_dependency import needs_extra

    with needs_extra("export"):
        from cascade_rt.bundles.bundle import is_bundle, read_bundle
        from cascade_rt.common.tolerances import GATE_LIMITS
        from cascade_rt.training.initial import load_initial
        from cascade_rt_export.bundle_export import export_bundle
        from cascade_rt_export.calibration import scan_calibration
        from cascade_rt_export.gate import read_limits
    from cascade_rt_cli.bundle_tables import print_bundle
    from cascade_rt_cli.console import spinner
    from cascade_rt_cli.export_engines import check_engine, export_engines
    from cascade_rt_cli.verbosity import print_note

    check_engine(engine, compute_capability)
    trained = load_initial(checkpoint)
    trained = replace(trained, cascade=_with(trained.cascade, corner_grid, islands, least_island_ml))
    calibration = scan_calibration(scans, reading) if scans else None
    print_note(f"exporting what was trained on {trained.data}, {trained.epochs_done} epochs")
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
            limits=GATE_LIMITS if limits is None else read_limits(limits),
            on_step=say,
        )
    print_bundle(bundle)
    left_out = bundle.manifest.parity.get("half_precision_left_out")
    if left_out is not None:
        print_note(f"cascade-rt: warning: the bundle holds float32 alone, half precision was left out: {left_out}")
    if engine is not None:
        export_engines(bundle, engine, compute_capability, overwrite=overwrite)


def _with(
    config: CascadeConfig, corner_grid: int | None, islands: Islands | None, least_island_ml: float | None
) -> CascadeConfig:
    """Return the config with the requested values in place of those from training."""
    crop = config.crop if corner_grid is None else replace(config.crop, corner_grid=corner_grid)
    return replace(
        config,
        crop=crop,
        islands=config.islands if islands is None else islands,
        least_island_ml=config.least_island_ml if least_island_ml is None else least_island_ml,
    )
