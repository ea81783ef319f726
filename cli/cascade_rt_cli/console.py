"""Print progress to stderr and results to stdout."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cascade_rt.common.shown_paths import hide_folders, plain_text, shown_path
from cascade_rt.errors import CascadeError
from cascade_rt_cli.flags import with_flags
from cascade_rt_cli.progress_lines import lines_while, progress_line
from cascade_rt_cli.verbosity import is_quiet


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


def printable(text: str) -> str:
    """Replace terminal control characters and unprintable characters."""
    return plain_text(text)


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
