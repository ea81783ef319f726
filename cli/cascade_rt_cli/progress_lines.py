"""Show progress without a terminal by printing occasional lines, so that a log shows that the work advances."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic

from rich.progress import Task
from rich.text import Text

EVERY_S = 30.0
"""Interval between lines in seconds."""


@contextmanager
def lines_while(
    line: Callable[[], str | None], say: Callable[[str], None], *, every_s: float = EVERY_S
) -> Iterator[None]:
    """Print a line at regular intervals while the `with` block runs.

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
