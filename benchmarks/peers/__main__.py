"""Whole scans beside what users would pick instead: the same scans, the same bundle, in turns.

    python -m benchmarks.peers --make-scans scans
    python -m benchmarks.peers scans/phantom_96.nii.gz -o peers.jsonl

Four peers (benchmarks/peers/*.py) and this package on each engine that runs here, every arm in a process of its own
that stays warm, one at work at a time. Then what the processor can do at best, what each stage reaches of it, and
which operators take the time. JSON lines, and a table in Markdown on standard output.
"""

from pathlib import Path

import click

from benchmarks.peers.arms import PEERS, PLAIN, Peer, our_arms
from benchmarks.peers.comparison import Options, measure_bundle
from benchmarks.peers.scans import make_scans
from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.outputs import check_file
from cascade_rt.errors import CascadeError, UsageError
from cascade_rt.measuring.benchmarking.arms import parse_arms
from cascade_rt.measuring.benchmarking.measure import Schedule
from cascade_rt.measuring.benchmarking.report import as_text

PATH = click.Path(path_type=Path)
DEFAULT_OUTPUT = Path(__file__).parents[1] / "results" / "peers.jsonl"


@click.command()
@click.argument("scans", nargs=-1, type=PATH, metavar="SCAN...")
@click.option("--make-scans", "scan_folder", type=PATH, metavar="DIR", help="Only write phantoms to measure on.")
@click.option(
    "--bundle",
    "bundles",
    type=PATH,
    multiple=True,
    default=(embedded_bundle_path("phantom"),),
    help="May be given several times. Default: the embedded bundle phantom.",
)
@click.option(
    "--peers",
    "peer_names",
    default=",".join(peer.name for peer in PEERS if not peer.on_request),
    show_default=True,
    metavar="NAMES",
    help=f"Separated by commas, from: {', '.join(peer.name for peer in PEERS)}. {PLAIN} is always included.",
)
@click.option(
    "--backends",
    metavar="ARMS",
    help="Our own arms, as in cascade-rt benchmark. Default: all that run here, except fp16 on a CPU.",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--warm-up", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds, in addition to a first scan."
)
@click.option("--limit/--no-limit", default=True, show_default=True, help="Measure what the processor can do.")
@click.option(
    "--memory", "tall", type=PATH, metavar="SCAN", help="Measure peak memory on this scan, such as tall_1000."
)
@click.option(
    "--folder", type=click.IntRange(0), default=0, help="Measure a folder of this many copies of the first scan."
)
@click.option("-o", "--output", type=PATH, default=DEFAULT_OUTPUT, help="Default: benchmarks/results/peers.jsonl.")
@click.option("--append", is_flag=True, help="Keep existing lines.")
@click.pass_context
def main(
    context: click.Context,
    scans: tuple[Path, ...],
    scan_folder: Path | None,
    bundles: tuple[Path, ...],
    peer_names: str,
    backends: str | None,
    rounds: int,
    warm_up: float,
    limit: bool,
    tall: Path | None,
    folder: int,
    output: Path,
    append: bool,
) -> None:
    """Compare whole scans, from file to file, with what users would use instead."""

    def say(text: str) -> None:
        click.echo(f"{text} ...", err=True)

    try:
        if scan_folder is not None:
            make_scans(scan_folder, say)
            return
        if not scans:
            raise UsageError("no scan to measure on; pass one, or write some with --make-scans DIR")
        check_file(output, overwrite=True)
        ours = our_arms() if backends is None else parse_arms(backends)
        options = Options(scans, choose_peers(peer_names), ours, Schedule(rounds, warm_up), limit, tall, folder)
        before = output.read_text(encoding="utf-8") if append and output.is_file() else ""
        for path in bundles:
            lines, table = measure_bundle(read_bundle(path), options, say)
            before += as_text(lines)
            write_bytes(output, before.encode(), overwrite=True)
            click.echo("\n".join(table))
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def choose_peers(names: str) -> tuple[Peer, ...]:
    """The peers of some names, peer (a) first; UsageError where there is none of a name."""
    by_name, wanted = {peer.name: peer for peer in PEERS}, [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in by_name:
            raise UsageError(f"unknown peer {name!r}; choose from {', '.join(by_name)}")
    return tuple(by_name[name] for name in dict.fromkeys([PLAIN, *wanted]))


if __name__ == "__main__":
    main()
