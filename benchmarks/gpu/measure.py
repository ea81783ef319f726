"""What the engines of an NVIDIA GPU are worth: do they segment like PyTorch, and how fast are the networks?

    python -m benchmarks.gpu.measure [--bundle BUNDLE] [-o results.jsonl]

Three parts, of which `--parts` chooses: `peaks`, what the GPU does at best; `gate`, each engine against PyTorch on a
bundle; `timings`, networks of random weights, PyTorch and the engines in turns. Each measurement is a line of JSON that
is written at once. What cannot run here is a line with the reason.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from benchmarks.gpu.arms import ARMS, BASELINE, Arithmetic
from benchmarks.gpu.clock import CudaClock, Turns
from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.device import own_stream, require_cuda
from benchmarks.gpu.lines import Lines, describe_machine, reason_of
from benchmarks.gpu.network import add_graphs, random_network
from benchmarks.gpu.peaks import measure_peaks
from benchmarks.gpu.timings import time_stages
from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import PRECISIONS, STAGES
from cascade_rt.errors import BackendUnavailableError, CascadeError

DEVICE = "cuda"
PARTS = ("peaks", "gate", "timings")
DEFAULT_OUTPUT = Path(__file__).parents[1] / "results" / "gpu.jsonl"
ARM_NAMES = tuple(arm.name for arm in ARMS)
PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured."""

    bundle: Path
    parts: tuple[str, ...]
    arms: tuple[str, ...]
    base_width: int
    batches: tuple[int, ...]
    turns: Turns
    minutes: float


@click.command()
@click.option(
    "--bundle",
    type=PATH,
    default=embedded_bundle_path("phantom"),
    help="Bundle for the gate. Default: the embedded bundle phantom.",
)
@click.option("--parts", type=click.Choice(PARTS), multiple=True, default=PARTS, help="Default: all.")
@click.option("--arms", type=click.Choice(ARM_NAMES), multiple=True, default=ARM_NAMES, help="Default: all.")
@click.option(
    "--base-width", type=click.IntRange(8), default=64, show_default=True, help="Width of the timed networks."
)
@click.option("--batches", type=click.IntRange(1), multiple=True, default=(1, 4, 16), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=Turns().rounds, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=Turns().seconds,
    show_default=True,
    help="Length of one turn of an arm.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=float("inf"),
    help="Begin nothing after so many minutes; what is left out is a line. Default: no limit.",
)
@click.option("--commit", help="Commit to record, if the folder is not a checkout. Default: asks git.")
@click.option("-o", "--output", type=PATH, default=DEFAULT_OUTPUT, help="Default: benchmarks/results/gpu.jsonl.")
@click.pass_context
def main(
    context: click.Context,
    bundle: Path,
    parts: tuple[str, ...],
    arms: tuple[str, ...],
    base_width: int,
    batches: tuple[int, ...],
    rounds: int,
    seconds: float,
    minutes: float,
    commit: str | None,
    output: Path,
) -> None:
    """Measure engines and networks on the NVIDIA GPU of this machine; list options may be given several times."""
    options = Options(bundle, parts, arms, base_width, batches, Turns(rounds, seconds), minutes)
    try:
        lines = Lines(output, describe_machine(require_cuda(), commit))
        with own_stream():
            for kind, measured in measure(options, lambda text: click.echo(f"{text} ...", err=True)):
                lines.write(kind, measured)
                click.echo(sentence(kind, measured), err=True)
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def measure(options: Options, say: Callable[[str], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Do all parts; yields the kind of each line and what was measured."""
    clock, deadline = CudaClock(), Deadline.after(60 * options.minutes)
    peaks: dict[Arithmetic, float] = {}
    if "peaks" in options.parts:
        say("measuring what the GPU does at best")
        for line in measure_peaks(clock, DEVICE):
            for arithmetic in get_args(Arithmetic):
                if line["name"] == f"matmul_{arithmetic}" and line["value"] is not None:
                    peaks[arithmetic] = line["value"]
            yield "peak", line
    if "gate" in options.parts:
        for line in gate_bundle(options.bundle, deadline, say):
            yield "gate", line
    if "timings" in options.parts:
        yield from time_networks(options, clock, peaks, deadline, say)


def gate_bundle(path: Path, deadline: Deadline, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Compare PyTorch here with PyTorch on the CPU, and all engines with PyTorch, on phantoms.

    Where that cannot be done at all, or no time is left for the engines, there is one line with the reason.
    """
    try:
        from benchmarks.gpu.gates import gate_of_pytorch, measure_gates
        from cascade_rt_export.calibration import phantom_calibration
        from cascade_rt_export.plans import built_plans
        from cascade_rt_export.trt_build import go_on
        from cascade_rt_export.trt_progress import OnProgress

        def on_build(what: str) -> OnProgress:
            say(f"gate: compiling {what}")
            return go_on

        bundle, calibration = read_bundle(path), phantom_calibration()
        yield gate_of_pytorch(bundle, calibration, DEVICE, say=say)
        yield from measure_gates(bundle, calibration, built_plans(on_build), deadline=deadline, say=say)
    except (ImportError, BackendUnavailableError) as error:
        yield {"backend": "all", "reason": reason_of(error)}


def time_networks(
    options: Options, clock: CudaClock, peaks: dict[Arithmetic, float], deadline: Deadline, say: Callable[[str], None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Time both stages in all batches. Graphs are exported only in the precisions that an arm reads."""
    network = random_network(options.base_width)
    chosen = [arm for arm in ARMS if arm.name in {*options.arms, BASELINE.name}]
    with tempfile.TemporaryDirectory() as folder:
        precisions = [each for each in PRECISIONS if each in {arm.graph for arm in chosen}]
        if precisions:
            add_graphs(network, Path(folder), say, precisions)
        for stage in STAGES:
            for precision in precisions:
                yield "graph", network.describe_graph(stage, precision)
        network.model.to(DEVICE)
        timed = time_stages(
            network, options.batches, clock, options.turns, peaks=peaks, arms=chosen, deadline=deadline, say=say
        )
        for line in timed:
            yield "timing", line


def sentence(kind: str, line: dict[str, Any]) -> str:
    """A measurement as a line to read."""
    named = (line.get(key) for key in ("name", "backend", "arm", "stage", "precision"))
    what = " ".join([kind, *filter(None, named)]) + (f", batch {line['batch']}" if "batch" in line else "")
    if line["reason"]:
        return f"{what}: not measured, {line['reason']}"
    if kind == "peak":
        return f"{what}: {line['value']:.1f} {line['unit']}"
    if kind == "gate":
        return f"{what}: {line['missed'] or 'within the limits'}"
    if kind == "graph":
        return f"{what}: made"
    ratio = "" if line["speedup"] is None else f", {line['speedup']:.2f} times as fast as {BASELINE.name}"
    return f"{what}: {line['median_s'] * 1e3:.2f} ms{ratio}"


if __name__ == "__main__":
    main()
