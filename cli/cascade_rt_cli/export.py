"""`cascade-rt export`: a checkpoint in, a bundle out."""

from pathlib import Path

import click

from cascade_rt_cli.options import PATH


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="BUNDLE", help="Folder of the bundle.")
@click.option("--name", help="What the bundle is called in reports. Default: the name of its folder.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
def export(checkpoint: Path, output: Path, name: str | None, overwrite: bool) -> None:
    """Export a trained cascade to a bundle: two ONNX graphs, the weights, a manifest.

    CHECKPOINT is the folder of a run, of which the last epoch is taken, or one checkpoint, such as its
    best.safetensors. Both graphs are run beside PyTorch on inputs they have never seen; if a probability differs by
    more than 1e-4, nothing is written and the exit code is 5.

    \b
    Examples:
      cascade-rt export runs/first -o bundles/first
      cascade-rt export runs/first/best.safetensors -o bundles/best
    """  # noqa: D301
    from cascade_rt_cli.missing import needs_extra

    with needs_extra("export"):
        from cascade_rt.training.checkpoint import load_checkpoint
        from cascade_rt_export.bundle_export import export_bundle
    from cascade_rt_cli.bundle_tables import print_bundle
    from cascade_rt_cli.console import spinner

    with spinner() as say:
        bundle = export_bundle(load_checkpoint(checkpoint), output, name=name, overwrite=overwrite, on_step=say)
    print_bundle(bundle)
