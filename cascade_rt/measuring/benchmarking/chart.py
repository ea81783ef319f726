"""Draw the steps of each arm as a horizontal stacked bar chart of seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cascade_rt.common.atomic import atomic_write
from cascade_rt.measuring.benchmarking.measure import ArmResult

_WIDTH, _BAR, _GAP, _MARGIN, _SWATCH, _LEGEND_LINE = 1000, 30, 18, 24, 14, 26
_TEXT, _FAINT, _BACKGROUND = (30, 30, 34), (200, 204, 210), (255, 255, 255)
_COLORS = {
    "load": (0, 114, 178),
    "preprocess": (86, 180, 233),
    "stage1": (230, 159, 0),
    "crop": (0, 158, 115),
    "stage2": (213, 94, 0),
    "paste": (204, 121, 167),
    "measure": (120, 94, 240),
    "save": (90, 90, 90),
}
"""Colors that remain distinct with color blindness; steps of other names use `_OTHER_COLORS` in turn."""
_OTHER_COLORS = ((240, 228, 66), (150, 75, 0), (0, 200, 200), (160, 160, 160))
REST = "rest"
"""The part of a run that no step accounts for."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of one arm: its steps and their total."""

    name: str
    steps: Mapping[str, float]
    """Seconds of each step."""
    total: float
    """Seconds from file to file; less than the sum of the steps if some ran concurrently."""

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of each step and, if positive, of the rest of the total."""
        rest = self.total - sum(self.steps.values())
        return {**self.steps, REST: rest} if rest > 0 else dict(self.steps)

    @property
    def length(self) -> float:
        """Length of the bar in seconds."""
        return sum(self.parts.values())


def bar_of(arm: ArmResult) -> Bar:
    """Return the bar of an arm, with means over its runs."""
    return Bar(arm.name, arm.steps, sum(arm.seconds) / len(arm.runs))


def save_chart(bars: Sequence[Bar], title: str, path: Path, *, overwrite: bool) -> None:
    """Write the chart as PNG. Raises like `atomic_write`."""
    picture = draw_chart(bars, title)
    atomic_write(path, lambda file: picture.save(file, format="PNG"), overwrite=overwrite)


def draw_chart(bars: Sequence[Bar], title: str) -> Image.Image:
    """Draw at least one bar, all on the same scale starting at 0."""
    font, large = ImageFont.load_default(15), ImageFont.load_default(18)
    names = max(font.getlength(bar.name) for bar in bars)
    totals = max(font.getlength(_seconds(bar)) for bar in bars)
    left, right = _MARGIN + names + 12, _WIDTH - _MARGIN - totals - 12
    steps = list(dict.fromkeys(step for bar in bars for step in bar.parts))
    colors = _colors(steps)
    legend = _legend_places(steps, font, left)
    top = _MARGIN + 34
    bottom = top + len(bars) * (_BAR + _GAP)
    height = bottom + legend[-1][1] + _LEGEND_LINE + _MARGIN
    image = Image.new("RGB", (_WIDTH, height), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, _MARGIN - 4), title, fill=_TEXT, font=large)
    scale = (right - left) / max(bar.length for bar in bars)
    for index, bar in enumerate(bars):
        middle = top + index * (_BAR + _GAP) + _BAR // 2
        draw.text((left - 12, middle), bar.name, fill=_TEXT, font=font, anchor="rm")
        end = _draw_bar(draw, bar, (left, middle), scale, colors)
        draw.text((end + 10, middle), _seconds(bar), fill=_TEXT, font=font, anchor="lm")
    draw.line((left, top - 8, left, bottom - _GAP + 8), fill=_FAINT)
    for step, (x, y) in zip(steps, legend, strict=True):
        draw.rectangle((x, bottom + y, x + _SWATCH, bottom + y + _SWATCH), fill=colors[step])
        draw.text((x + _SWATCH + 6, bottom + y + _SWATCH // 2), step, fill=_TEXT, font=font, anchor="lm")
    return image


def _draw_bar(
    draw: ImageDraw.ImageDraw,
    bar: Bar,
    start: tuple[float, int],
    scale: float,
    colors: Mapping[str, tuple[int, int, int]],
) -> float:
    """Draw the parts of a bar one after the other, and return the x coordinate of its end."""
    x, middle = start
    for step, seconds in bar.parts.items():
        end = x + seconds * scale
        if end - x >= 0.5:
            draw.rectangle((x, middle - _BAR // 2, end, middle + _BAR // 2), fill=colors[step])
        x = end
    return x


def _seconds(bar: Bar) -> str:
    overlap = bar.length - bar.total
    return f"{bar.total:.2f} s" + (f" ({overlap:.2f} s at the same time)" if overlap > 0.01 * bar.total else "")


def _colors(steps: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    others = [step for step in steps if step not in _COLORS]
    return _COLORS | {step: _OTHER_COLORS[index % len(_OTHER_COLORS)] for index, step in enumerate(others)}


def _legend_places(
    steps: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, left: float
) -> list[tuple[float, int]]:
    """Return the position (x, y) of each legend entry in pixels, wrapped to the picture width; y starts at 0."""
    places: list[tuple[float, int]] = []
    x, y = left, 0
    for step in steps:
        width = _SWATCH + 6 + font.getlength(step) + 20
        if x + width > _WIDTH - _MARGIN and x > left:
            x, y = left, y + _LEGEND_LINE
        places.append((x, y))
        x += width
    return places
