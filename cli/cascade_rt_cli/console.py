"""Print progress to stderr and results to stdout."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cascade_rt.common.shown_paths import hide_folders, plain_text, shown_path
from cascade_rt.errors import CascadeError
from cascade_rt.results.segmentation import STATUS_SENTENCES, Segmentation
from cascade_rt.run.inference import Job
from cascade_rt_cli.flags import with_flags
from cascade_rt_cli.progress_lines import lines_while, progress_line
from cascade_rt_cli.verbosity import is_quiet

if TYPE_CHECKING:
    from cascade_rt.measuring.evaluation import Evaluation


def results_console(*, shown: bool = True) -> Console:
    """Return the console for results. Lines are not wrapped in a pipe."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=not shown or is_quiet())


@contextmanager
def progress_bar(*, shown: bool = True) -> Iterator[Progress]:
    """Show a progress bar on a terminal, or an occasional line in a pipe."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with shown_progress(Progress(*columns, console=Console(stderr=True), transient=True), shown=shown) as progress:
        yield progress


@contextmanager
def shown_progress(progress: Progress, *, shown: bool = True) -> Iterator[Progress]:
    """Show a stderr progress bar on a terminal, lines instead in a pipe, and nothing if not `shown` or with `-q`."""
    shown = shown and not is_quiet()
    progress.disable = not (shown and progress.console.is_terminal)
    in_lines = shown and progress.disable
    lines = lines_while(lambda: progress_line(progress.tasks), _print_line) if in_lines else nullcontext()
    with progress, lines:
        yield progress


def print_segmentation(console: Console, job: Job, segmentation: Segmentation) -> None:
    """Print the findings in one scan, the output paths, the timings and the engine."""
    console.print(f"{printable(shown(job.scan))}: {STATUS_SENTENCES[segmentation.status]}", style="bold")
    print_rows(console, (*_findings(segmentation), *run_rows(job, segmentation)), indent=2)


def print_rows(console: Console, rows: Iterable[tuple[str, str]], *, indent: int = 0) -> None:
    """Print names and texts in two columns, with each row on one line of any length."""
    table = list(rows)
    width = max([11, *(len(name) + 2 for name, _ in table)])
    for name, text in table:
        console.print(f"{'':{indent}}{name:<{width}}{shown_message(text, ())}")


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as printed: without folders outside the working folder, unless `--log-paths` is given."""
    return os.fspath(path) if logs_paths() else shown_path(path)


def typed(path: str | os.PathLike[str], placeholder: str) -> str:
    """Return a path for a suggested command: as printed if that resolves to the path, otherwise the placeholder."""
    text = shown(path)
    return printable(text if os.path.abspath(text) == os.path.abspath(path) else placeholder)


def shown_message(message: str, paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return a message on one line, with its paths as printed (see `shown`)."""
    return printable(with_flags(message if logs_paths() else hide_folders(message, paths)))


@contextmanager
def shown_errors(paths: Sequence[str | os.PathLike[str]]) -> Iterator[None]:
    """Rewrite errors raised inside the block, line by line, so that they name these files as printed (see `shown`)."""
    try:
        yield
    except CascadeError as error:
        lines = (shown_message(line, paths) for line in str(error).split("\n"))
        raise type(error)("\n".join(lines), code=error.code) from error


def logs_paths() -> bool:
    """Return whether paths are printed in full."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("log_paths"))


def volume_text(volume_ml: float) -> str:
    """Format a volume in ml. A nonzero volume is never shown as 0."""
    return "under 0.1 ml" if 0 < volume_ml < 0.05 else f"{volume_ml:.1f} ml"


def printable(text: str) -> str:
    """Replace terminal control characters and unprintable characters."""
    return plain_text(text)


def print_intended_use(console: Console, result: "Segmentation | Evaluation") -> None:
    """Print the intended use of the bundle."""
    bundle = result.provenance["bundle"]
    console.print(f"Bundle {bundle['name']}: {bundle['intended_use']}", style="yellow")


def _findings(segmentation: Segmentation) -> Iterator[tuple[str, str]]:
    found, slices = segmentation.measurements, len(segmentation.mask)
    if segmentation.organ_sought:
        with_tumor = f", with tumor {volume_text(found.organ_ml)}" if segmentation.tumor_sought else ""
        where = f"in {found.organ_slices} of {slices} slices"
        yield "pancreas", f"{volume_text(found.pancreas_ml)}{with_tumor}, {where}"
    if segmentation.tumor_sought:
        yield "tumor", f"{volume_text(found.tumor_ml)} in {found.tumor_slices} slices"
    else:
        yield "tumor", "not looked for: this bundle finds the pancreas"
    for lesion in found.lesions[:3]:
        score = "" if lesion.score is None else f", score {lesion.score:.2f}"
        yield "", f"lesion of {lesion.volume_ml:.2f} ml, as large as a ball of {lesion.diameter_mm:.0f} mm{score}"
    if len(found.lesions) > 3:
        yield "", f"and {len(found.lesions) - 3} smaller"
    islands = segmentation.islands
    if islands.components is not None and islands.kept != islands.components:
        dropped = islands.components - (islands.kept or 0)
        yield "dropped", f"{volume_text(islands.ml_dropped)}: {dropped} of {islands.components} pieces found"


def run_rows(job: Job, segmentation: Segmentation) -> Iterator[tuple[str, str]]:
    """Yield rows with the output paths, the timings, the engine and the warnings of a scan."""
    engine = segmentation.provenance["engine"]
    yield "mask", shown(job.mask)
    yield "report", shown(job.report)
    if job.picture is not None:
        yield "picture", shown(job.picture)
    steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in segmentation.timings.items())
    yield "time", f"{segmentation.wall_s:.2f} s ({steps})"
    yield "engine", f"{engine['backend']} {engine['version']} on {engine['device']}, {engine['precision']}"
    for reason in segmentation.provenance["engines_passed_over"]:
        yield "", reason
    for warning in segmentation.warnings:
        yield "warning", f"{warning.code}: {warning}"


def _print_line(text: str) -> None:
    click.echo(text, err=True)


@contextmanager
def spinner() -> Iterator[Callable[[str], None]]:
    """Show the current step in a spinner on a terminal, or as one line per step in a pipe."""
    console = Console(stderr=True, highlight=False, quiet=is_quiet())
    if not console.is_terminal:
        steps: list[str] = []

        def say(text: str) -> None:
            steps.append(printable(text))
            console.print(f"{steps[-1]} ...", markup=False)

        lines = lines_while(lambda: f"still {steps[-1]}" if steps else None, _print_line)
        with nullcontext() if is_quiet() else lines:
            yield say
        return
    with console.status("") as status:
        yield lambda text: status.update(f"{escape(printable(text))} ...")
