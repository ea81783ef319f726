"""`cascade-rt verify`: check that an engine on this machine segments the way PyTorch does."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cascade_rt.engines import EngineRequest
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.bundle import format_dice
from cascade_rt_cli.console import print_rows, results_console, spinner
from cascade_rt_cli.messages import needs_extra
from cascade_rt_cli.options import (
    BUNDLE,
    calibrate_option,
    engine_options,
    limits_option,
    scan_options,
)

_MAPS = {
    "organ": "organ",
    "tumor": "tumor",
    "tumor_behind_pytorch": "tumor, stage 1 from PyTorch",
    "tumor_before_pytorch": "tumor, stage 2 from PyTorch",
}


@click.command()
@click.argument("bundle", required=False, type=BUNDLE)
@calibrate_option
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
@limits_option
@engine_options
@scan_options
@needs_extra("export")
def verify(
    bundle: Path | None,
    scans: tuple[Path, ...],
    as_json: bool,
    limits: Path | None,
    engines: EngineRequest,
    reading: ScanOptions,
) -> None:
    """Compare an engine with PyTorch on slices of scans, on this machine, and fail if they differ.

    It measures the probabilities, the masks of each stage and of both together, boxes that move, tumors that appear or
    vanish, and whether a result depends on its position in a batch. The exit code is 5 if a limit is exceeded; the
    message names the slice. BUNDLE may be an embedded one: patients, patients-tumor or phantom. Default: the
    one that infer uses.

    \b
    Examples:
      cascade-rt verify bundles/first --calibrate scan.nii.gz
      cascade-rt verify bundles/first --backend onnxruntime --precision fp16
    """  # noqa: D301
    from cascade_rt.run.cascade import open_cascade
    from cascade_rt_export.calibration import scan_calibration
    from cascade_rt_export.gate import read_limits
    from cascade_rt_export.verification import judge_cascade, measure_parity

    allowed = read_limits(limits)
    # Engines are opened before the spinner starts, because compiling one shows its own progress bar.
    with open_cascade(bundle, engines=engines, falls_back=False) as cascade, spinner() as say:
        calibration = scan_calibration(scans, reading) if scans else None
        found = measure_parity(cascade, calibration, on_step=say)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_rows(results_console(), _rows(found.to_json()))
    judge_cascade(found, cascade, allowed)


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    engine = found["engine"]
    yield "engine", f"{engine['backend']} {engine['version']}, {engine['precision']}, {engine['device']}"
    yield "slices", f"{found['slices']} of {found['calibration']}"
    for key, name in _MAPS.items():
        each = found[key]
        yield (
            name,
            f"mask Dice {format_dice(each['mask_dice'])}, largest error {each['max_error']:.1e} "
            f"({each['worst_slice']}), mean {each['mean_error']:.1e}",
        )
    for key, name in (
        ("boxes_moved", "different box"),
        ("tumors_appeared", "new tumor"),
        ("tumors_vanished", "no tumor"),
    ):
        yield name, f"{len(found[key])} slices" + (f": {', '.join(found[key])}" if found[key] else "")
    for stage, error in found["slot_errors"].items():
        yield f"batch of {stage}", f"largest difference between positions {math.nan if error is None else error:.1e}"
