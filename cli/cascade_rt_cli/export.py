"""`cascade-rt export`: a checkpoint in, a bundle out."""

from pathlib import Path

import click

from cascade_rt_cli.options import PATH, calibrate_option


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="BUNDLE", help="Folder of the bundle.")
@click.option("--name", help="What the bundle is called in reports. Default: the name of its folder.")
@click.option("--fp16/--no-fp16", "half", default=True, show_default=True, help="Add graphs in half precision.")
@calibrate_option
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
def export(
    checkpoint: Path, output: Path, name: str | None, half: bool, scans: tuple[Path, ...], overwrite: bool
) -> None:
    """Export a trained cascade to a bundle: ONNX graphs in float32 and half precision, the weights, a manifest.

    CHECKPOINT is the folder of a run, of which the last epoch is taken, or one checkpoint, such as its
    best.safetensors. Each graph is run beside PyTorch on inputs it has never seen, and the whole cascade on slices of
    the scans to calibrate on. If a probability of float32 differs by more than 1e-4, or the masks of a precision have a
    Dice below 0.999 with those of PyTorch, nothing is written and the exit code is 5.

    \b
    Examples:
      cascade-rt export runs/first -o bundles/first --calibrate scan1.nii.gz --calibrate scan2.nii.gz
      cascade-rt export runs/first/best.safetensors -o bundles/best --no-fp16
    """  # noqa: D301
    from cascade_rt_cli.missing import needs_extra

    with needs_extra("export"):
        from cascade_rt.training.checkpoint import load_checkpoint
        from cascade_rt_export.bundle_export import export_bundle
        from cascade_rt_export.calibration import scan_calibration
    from cascade_rt_cli.bundle_tables import print_bundle
    from cascade_rt_cli.console import spinner

    calibration = scan_calibration(scans) if scans else None
    with spinner() as say:
        bundle = export_bundle(
            load_checkpoint(checkpoint),
            output,
            name=name,
            overwrite=overwrite,
            half=half,
            calibration=calibration,
            on_step=say,
        )
    print_bundle(bundle)
