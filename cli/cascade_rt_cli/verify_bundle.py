"""Run the parity gate on one engine and print its measurements."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cascade_rt.bundles.bundle import default_bundle_path, read_bundle
from cascade_rt.common.tolerances import GATE_LIMITS
from cascade_rt.engines import BackendChoice, PrecisionChoice, open_engines
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.bundle_tables import format_dice
from cascade_rt_cli.console import print_rows, results_console, spinner
from cascade_rt_cli.plans import plans
from cascade_rt_export.calibration import default_calibration, scan_calibration
from cascade_rt_export.gate import judge, read_limits, run_gate

_MAPS = {
    "organ": "organ",
    "tumor": "tumor",
    "tumor_behind_pytorch": "tumor, stage 1 from PyTorch",
    "tumor_before_pytorch": "tumor, stage 2 from PyTorch",
}


def verify_bundle(
    path: Path | None,
    scans: Sequence[Path],
    reading: ScanOptions,
    backend: BackendChoice,
    precision: PrecisionChoice,
    *,
    limits: Path | None,
    as_json: bool,
) -> None:
    """Measure one engine and print the result before judging it.

    Raises:
        ParityError: A limit is missed.
        UsageError: The limits file is invalid.
    """
    allowed = GATE_LIMITS if limits is None else read_limits(limits)
    bundle = read_bundle(path or default_bundle_path())
    # Engines are opened before the spinner starts, because compiling one shows its own progress bar.
    with (
        open_engines(bundle, "pytorch", "fp32") as reference,
        open_engines(bundle, backend, precision, plans) as candidate,
        spinner() as say,
    ):
        say("reading the slices")
        calibration = (
            scan_calibration(scans, reading) if scans else default_calibration(bundle.manifest.training["data"])
        )
        found = run_gate(reference, candidate, bundle.manifest.config, calibration, on_step=say)
    info = candidate.stage1.info
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_rows(results_console(), _rows(found.to_json()))
    what = f"{bundle.manifest.name} in {info.precision} on {info.backend}"
    judge(found, allowed[info.precision], what)


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
        ("boxes_moved", "another box"),
        ("tumors_appeared", "new tumor"),
        ("tumors_vanished", "no tumor"),
    ):
        yield name, f"{len(found[key])} slices" + (f": {', '.join(found[key])}" if found[key] else "")
    for stage, error in found["slot_errors"].items():
        yield f"batch of {stage}", f"largest difference between places {math.nan if error is None else error:.1e}"
