"""`cascade-rt benchmark`: compare the time per scan of several engines, and whether their masks stay the same."""

from pathlib import Path

import click

from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt_cli.options import PATH, FiniteFloat, bundle_option, overwrite_option, scan_options


@click.command()
@click.argument("scans", nargs=-1, required=True, type=PATH, metavar="SCAN...")
@click.option(
    "--backends",
    metavar="ARMS",
    help="What is measured, with commas between: backends, each with or without :precision, such as "
    "onnxruntime,pytorch:fp32. Without a precision the backend takes its usual one. Behind it +z-search=4 or +body-box "
    "leave parts of the scan out, as in infer; the table shows what that costs. Default: all that run here.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="In each round every arm segments every scan once. 90th percentiles need 10 runs, 99th 100.",
)
@click.option(
    "--warm-up",
    type=FiniteFloat(min=0),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="Each arm runs at least this long, and each scan once, before anything counts.",
)
@click.option("-o", "--output", type=PATH, metavar="JSONL", help="Write every arm and every run to this file.")
@click.option("--chart", type=PATH, metavar="PNG", help="Draw the steps of each arm to this file.")
@scan_options
@bundle_option
@overwrite_option
def benchmark(
    scans: tuple[Path, ...],
    backends: str | None,
    rounds: int,
    warm_up: float,
    output: Path | None,
    chart: Path | None,
    bundle: Path | None,
    overwrite: bool,
    reading: ScanOptions,
) -> None:
    """Time whole scans, from file to file, on several engines side by side.

    Each arm (a backend in a precision) has a process of its own and segments SCAN as infer does, into a folder that is
    removed afterwards. First each starts cold and gets warm; then all take turns, A B A B, so that whatever slows the
    machine down for a while meets all of them. Nothing else should run on the machine.

    The table has the percentiles of the time of a scan, slices per second and peak memory, and beside them the Dice of
    the masks with those of PyTorch in float32: speed that changes masks is no speed. Below it stand how many times as
    fast each arm is as the first one, with its 95 % interval, the cold start, and the time of each step.

    \b
    Examples:
      cascade-rt benchmark scan.nii.gz
      cascade-rt benchmark scan.nii.gz --backends onnxruntime,pytorch --rounds 10 --chart steps.png
      cascade-rt benchmark scan.nii.gz --backends openvino:fp32,openvino:fp32+z-search=4
      cascade-rt benchmark scans/*.nii.gz --bundle bundles/first -o results.jsonl
      cascade-rt demo && cascade-rt benchmark out/demo/phantom.nii.gz --bundle phantom
    """  # noqa: D301
    from cascade_rt.measuring.benchmarking.measure import Schedule
    from cascade_rt_cli.benchmark_scans import Outputs, benchmark_scans

    outputs = Outputs(output, chart, overwrite=overwrite)
    benchmark_scans(scans, backends, bundle, Schedule(rounds, warm_up), outputs, reading)
