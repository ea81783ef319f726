"""Show progress on stderr and print results on stdout."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from threading import Event, Thread
from time import monotonic

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cascade_rt_cli.messages import printable, shown_message
from cascade_rt_cli.output import is_quiet


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


@contextmanager
def paused(progress: Progress) -> Iterator[None]:
    """Take a progress bar off the terminal while results are printed, which would otherwise start behind it."""
    if progress.disable:
        yield
        return
    progress.stop()
    try:
        yield
    finally:
        progress.start()


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


def _print_line(text: str) -> None:
    click.echo(text, err=True)


@contextmanager
def lines_while(line: Callable[[], str | None], say: Callable[[str], None], *, every_s: float = 30) -> Iterator[None]:
    """Print a line at regular intervals while the `with` block runs, so that a log shows that the work advances.

    This is done from a thread, like drawing a progress bar, because one step of the work may take minutes.

    Args:
        line: Returns the current line, or None to print nothing.
        say: Prints a line.
        every_s: Interval between lines in seconds.
    """
    ended, started = Event(), monotonic()

    def run() -> None:
        while not ended.wait(every_s):
            text = line()
            if text is not None:
                say(f"{text}, after {duration(monotonic() - started)}")

    thread = Thread(target=run, name="progress lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def progress_line(tasks: Sequence[Task]) -> str | None:
    """Return a line with the progress of all started but unfinished tasks of a bar, or None if there are none."""
    return "; ".join(_stand(task) for task in tasks if task.completed and not task.finished) or None


def _stand(task: Task) -> str:
    what = Text.from_markup(task.description).plain.strip()
    count = f"{task.completed:g}" if task.total is None else f"{task.completed:g} of {task.total:g}"
    left = "" if task.time_remaining is None else f", about {duration(task.time_remaining)} left"
    return f"{what}: {count}{left}"


def duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds, such as 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def print_rows(console: Console, rows: Iterable[tuple[str, str]], *, indent: int = 0) -> None:
    """Print names and texts in two columns, with each row on one line of any length."""
    table = list(rows)
    width = max([11, *(len(name) + 2 for name, _ in table)])
    for name, text in table:
        console.print(f"{'':{indent}}{name:<{width}}{shown_message(text, ())}")
