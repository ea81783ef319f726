"""`cascade-rt verify`: check that an engine on this machine segments the way PyTorch does."""

from pathlib import Path

import click

from cascade_rt.engines import BackendChoice, PrecisionChoice
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.options import (
    BUNDLE,
    backend_option,
    calibrate_option,
    limits_option,
    precision_option,
    scan_options,
)


@click.command()
@click.argument("bundle", required=False, type=BUNDLE)
@calibrate_option
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as JSON.")
@limits_option
@backend_option
@precision_option
@scan_options
def verify(
    bundle: Path | None,
    scans: tuple[Path, ...],
    as_json: bool,
    limits: Path | None,
    backend: BackendChoice,
    precision: PrecisionChoice,
    reading: ScanOptions,
) -> None:
    """Compare an engine with PyTorch on slices of scans, on this machine, and fail where they differ.

    Measured are the probabilities, the masks of each stage and of both together, boxes that move, tumors that appear
    or vanish, and whether an answer depends on its place in a batch. The exit code is 5 where a limit is missed; the
    message names the slice. BUNDLE may be patients or phantom, the embedded ones; without it the default is compared.

    \b
    Examples:
      cascade-rt verify bundles/first --calibrate scan.nii.gz
      cascade-rt verify bundles/first --backend onnxruntime --precision fp16
    """  # noqa: D301
    from cascade_rt_cli.optional_dependency import needs_extra

    with needs_extra("export"):
        import cascade_rt_export.gate  # noqa: F401
    from cascade_rt_cli.verify_bundle import verify_bundle

    verify_bundle(bundle, scans, reading, backend, precision, limits=limits, as_json=as_json)
