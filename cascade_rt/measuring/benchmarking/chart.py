"""The steps of each arm as a picture: bars of seconds, one below the other."""

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
"""Colours that people tell apart however they see them; steps of other names take `_OTHER_COLORS` in turn."""
_OTHER_COLORS = ((240, 228, 66), (150, 75, 0), (0, 200, 200), (160, 160, 160))
REST = "rest"
"""What of a run no step accounts for."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One arm: its steps, and what they took all together."""

    name: str
    steps: Mapping[str, float]
    total: float
    """Seconds from file to file; less than the sum of the steps where some ran at the same time."""

    @property
    def parts(self) -> dict[str, float]:
        """The steps and what is left of the whole."""
        rest = self.total - sum(self.steps.values())
        return {**self.steps, REST: rest} if rest > 0 else dict(self.steps)

    @property
    def length(self) -> float:
        """Seconds that the bar is long."""
        return sum(self.parts.values())


def bar_of(arm: ArmResult) -> Bar:
    """The bar of an arm, means over its runs."""
    return Bar(arm.name, arm.steps, sum(arm.seconds) / len(arm.runs))


def save_chart(bars: Sequence[Bar], title: str, path: Path, *, overwrite: bool) -> None:
    """Draw the bars as PNG; raises like `atomic_write`."""
    picture = draw_chart(bars, title)
    atomic_write(path, lambda file: picture.save(file, format="PNG"), overwrite=overwrite)


def draw_chart(bars: Sequence[Bar], title: str) -> Image.Image:
    """Draw at least one bar; all have the same scale, which begins at 0."""
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
    """Draw the parts of a bar one behind the other; returns where it ends."""
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
    """Where each name of the legend begins, in lines of the picture's width."""
    places: list[tuple[float, int]] = []
    x, y = left, 0
    for step in steps:
        width = _SWATCH + 6 + font.getlength(step) + 20
        if x + width > _WIDTH - _MARGIN and x > left:
            x, y = left, y + _LEGEND_LINE
        places.append((x, y))
        x += width
    return places
