"""What is printed reads as it was meant, and lines stand for a progress bar where there is no terminal."""

import re
import threading
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from cascade_rt.results.islands import IslandRecord
from cascade_rt.run.case import Case
from cascade_rt.scans.volume import Volume
from cascade_rt_cli.console import duration, lines_while, progress_line, spinner
from cascade_rt_cli.findings import print_findings, volume_text
from cascade_rt_cli.output import print_note
from tests.cohort_files import AFFINE, HU, block, fake_cascade


@pytest.mark.parametrize(
    ("volume_ml", "text"),
    [(0.0, "0.0 ml"), (0.001, "under 0.1 ml"), (0.049, "under 0.1 ml"), (0.05, "0.1 ml"), (76.66, "76.7 ml")],
)
def test_a_volume_that_was_found_is_never_nothing(volume_ml: float, text: str) -> None:
    assert volume_text(volume_ml) == text


@pytest.mark.parametrize(
    ("islands", "line"),
    [
        (IslandRecord("largest", components=3, kept=1, voxels_dropped=9, ml_dropped=1.24), "1.2 ml: 2 of 3 pieces"),
        (IslandRecord("largest", components=1, kept=1), None),
        (IslandRecord("largest"), None),
    ],
)
def test_dropped_islands_are_reported_if_there_are_any(islands: IslandRecord, line: str | None) -> None:
    found = replace(fake_cascade().run(Volume.from_array(HU[block((1, 4, 4))].T, AFFINE)), islands=islands)
    text = StringIO()
    case = Case(Path("a.nii"), Path("b.nii"), Path("c.json"))
    print_findings(Console(file=text, width=200), case, found.to_json())
    dropped = [row.split("dropped", 1)[1].strip() for row in text.getvalue().splitlines() if "dropped" in row]
    assert dropped == ([] if line is None else [f"{line} found"])


def test_notes_and_steps_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_note("bundle \x1b[2J")
    with spinner() as say:
        say("reading \x1b[31m[bold]scan")
    assert capsys.readouterr().err.splitlines()[:2] == ["bundle ?[2J", "reading ?[31m[bold]scan ..."]


def test_a_line_is_said_again_and_again_until_the_work_is_done() -> None:
    said: list[str] = []
    twice = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            twice.set()

    with lines_while(lambda: "at work", say, every_s=0.001):
        assert twice.wait(60)
    assert re.match(r"at work, after \d:\d\d:\d\d$", said[0])
    assert "progress lines" not in {thread.name for thread in threading.enumerate()}


def test_a_progress_line_shows_unfinished_tasks() -> None:
    with Progress(console=Console(), disable=True) as bars:
        bars.update(bars.add_task("checking", total=3), completed=3)
        bars.update(bars.add_task("[bold]converting[/]", total=5), completed=2)
        line = progress_line(bars.tasks)
    assert line is not None
    assert line.startswith("converting: 2 of 5")


def test_without_unfinished_tasks_there_is_no_line() -> None:
    assert progress_line(()) is None


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (61, "0:01:01"), (3723, "1:02:03")])
def test_a_duration_is_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text
