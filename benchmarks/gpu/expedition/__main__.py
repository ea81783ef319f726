"""All that is to be learned on a borrowed GPU, in one command of limited length, in order of worth.

    python -m benchmarks.gpu.pack packed                                   # before, where there is a network
    python -m benchmarks.gpu.expedition --minutes 12 --packed packed -o results
    python -m benchmarks.gpu.expedition --summary results

Each part runs in a process of its own and is killed at its deadline; the failure of one never stops the next. Each
measurement is a line of `results.jsonl`, written as it comes. What the parts print is in `log.txt`.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu.expedition.child import gpu_here
from benchmarks.gpu.expedition.packed import install_packed
from benchmarks.gpu.expedition.parts import PARTS, Part
from benchmarks.gpu.expedition.runner import Outcome, Running, last_line, run_parts
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.expedition.summary import RESULTS, summary
from benchmarks.gpu.lines import Lines, describe_machine
from cascade_rt.common.outputs import make_folder
from cascade_rt.errors import CascadeError, UsageError

ROOT = Path(__file__).resolve().parents[3]
LOG = "log.txt"
FOLDER = click.Path(path_type=Path, file_okay=False)
NAMES = tuple(part.name for part in PARTS)


@click.command()
@click.option("-o", "--output", type=FOLDER, help="Folder for results.jsonl and log.txt.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=12.0, show_default=True, help="In all.")
@click.option("--only", type=click.Choice(NAMES), multiple=True, help="Parts; may be given several times.")
@click.option("--packed", type=FOLDER, help="Folder that benchmarks.gpu.pack wrote.")
@click.option("--list", "lists", is_flag=True, help="Print the parts and exit.")
@click.option("--summary", "summed_up", type=FOLDER, help="Print what the results in a folder say, and exit.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", help="cpu tries the code of some parts.")
@click.option("--emulated", is_flag=True, help="The driver is an emulated one, whose memory is the host's.")
@click.option("--base-width", type=click.IntRange(8), default=Settings().base_width, show_default=True)
@click.option("--side", type=click.IntRange(64), help="Side of all images in pixels. Default: the usual ones.")
@click.option("--commit", default="", help="Commit to record, if the folder is not a checkout.")
@click.pass_context
def main(
    context: click.Context,
    output: Path | None,
    minutes: float,
    only: tuple[str, ...],
    packed: Path | None,
    lists: bool,
    summed_up: Path | None,
    **settings: Any,
) -> None:
    """Measure on the NVIDIA GPU of this machine."""
    # As an exception, so that what runs is ended too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        if lists:
            click.echo("\n".join(f"{part.name:10} {part.seconds:6.0f} s  {part.what}" for part in PARTS))
        elif summed_up is not None:
            click.echo(summary(summed_up))
        elif output is None:
            raise UsageError("name a folder for the results: -o FOLDER")
        else:
            chosen = tuple(part for part in PARTS if not only or part.name in only)
            click.echo(last_line(go(output, chosen, 60 * minutes, sized(Settings(**settings)), packed, click.echo)))
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)


def sized(settings: Settings) -> Settings:
    """Smaller scans and shorter turns where images are small, which is to try the code."""
    if settings.side is None:
        return settings
    side = settings.side
    return replace(settings, scan_shape=(8, side, side), calibration_side=side, rounds=1, turn_seconds=0.01)


def go(
    output: Path,
    parts: Sequence[Part],
    seconds: float,
    settings: Settings,
    packed: Path | None,
    say: Callable[[str], object] = lambda _: None,
) -> tuple[Outcome, ...]:
    """Run parts; returns how they ended.

    Args:
        output: Folder for the results.
        parts: What is run.
        seconds: What all have together.
        settings: What they are told.
        packed: What was carried, if anything.
        say: Called with a sentence when a part ended.

    Raises:
        OutputError: The folder cannot be made or written.
        UsageError: What was carried cannot be installed.
    """
    make_folder(output)
    lines = Lines(output / RESULTS, describe_machine(gpu_here(), settings.commit or None))

    def on_end(outcome: Outcome, printed: str) -> None:
        described = {"name": outcome.part, "status": outcome.status, "seconds": outcome.seconds}
        lines.write("part", {**described, "reason": outcome.reason})
        with (output / LOG).open("a", encoding="utf-8") as log:
            log.write(f"==== {outcome.part}: {outcome.status}\n{printed}\n")
        why = f": {outcome.reason}" if outcome.reason else ""
        say(f"{outcome.part} {outcome.status} after {outcome.seconds:.0f} s{why}")

    with tempfile.TemporaryDirectory(prefix="expedition-") as scratch:
        site = Path(scratch) / "site"
        if packed is not None:
            install_packed(packed, site)
        told = replace(settings, site=str(site), packed="" if packed is None else str(packed.resolve()))
        launch = launcher(output / RESULTS, told, Path(scratch))
        outcomes = run_parts(parts, launch, on_end, seconds)
    lines.write("expedition", {"ended": last_line(outcomes), "reason": None})
    return outcomes


def launcher(results: Path, settings: Settings, scratch: Path) -> Callable[[Part, float], Running]:
    """How a part is started: from any folder, with the packages that were carried before those that are installed."""
    folders = [settings.site, ROOT, ROOT / "cli", ROOT / "export", os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(each) for each in folders if str(each))}

    def launch(part: Part, seconds: float) -> Running:
        module = "benchmarks.gpu.expedition.child"
        arguments = [part.name, str(results.resolve()), settings.to_json(), str(seconds)]
        command = [sys.executable, "-m", module, *arguments]
        return Running(part, command, environment, scratch / f"{part.name}.log", seconds)

    return launch


if __name__ == "__main__":
    main()
