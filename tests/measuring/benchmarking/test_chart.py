"""The picture of the steps."""

from pathlib import Path

import pytest
from PIL import Image

from cascade_rt.errors import OutputExistsError
from cascade_rt.measuring.benchmarking.chart import REST, Bar, draw_chart, save_chart

BARS = [Bar("slow", {"load": 1.0, "stage1": 6.0}, 8.0), Bar("fast", {"load": 0.5, "stage1": 1.5}, 1.5)]
STAGE1 = (230, 159, 0)


def pixels(image: Image.Image, color: tuple[int, int, int], rows: range) -> int:
    """Pixels of a colour in some rows."""
    return sum(image.getpixel((x, y)) == color for x in range(image.width) for y in rows)


def test_what_no_step_accounts_for_is_a_part_of_the_bar() -> None:
    assert BARS[0].parts == {"load": 1.0, "stage1": 6.0, REST: 1.0}


def test_steps_at_the_same_time_leave_no_rest() -> None:
    assert BARS[1].parts == {"load": 0.5, "stage1": 1.5}


def test_bars_are_as_long_as_their_seconds() -> None:
    image = draw_chart(BARS, "steps")
    rows = [y for y in range(image.height) if pixels(image, STAGE1, range(y, y + 1)) > 100]
    slow = pixels(image, STAGE1, range(rows[0], rows[0] + 1))
    fast = pixels(image, STAGE1, range(rows[-1], rows[-1] + 1))
    assert slow / fast == pytest.approx(4.0, rel=0.05)


def test_the_chart_is_a_png(tmp_path: Path) -> None:
    save_chart(BARS, "steps", tmp_path / "steps.png", overwrite=False)
    with Image.open(tmp_path / "steps.png") as picture:
        assert picture.format == "PNG"


def test_an_existing_picture_is_kept_by_default(tmp_path: Path) -> None:
    (tmp_path / "steps.png").write_text("mine")
    with pytest.raises(OutputExistsError):
        save_chart(BARS, "steps", tmp_path / "steps.png", overwrite=False)


def test_many_steps_need_more_lines_of_legend() -> None:
    steps = {f"step number {index}": 1.0 for index in range(12)}
    assert draw_chart([Bar("a", steps, 12.0)], "").height > draw_chart([Bar("a", {"load": 1.0}, 1.0)], "").height
