"""A picture that lets a person judge a mask at a glance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cascade_rt.atomic import atomic_write
from cascade_rt.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.metrics import dice
from cascade_rt.segmentation import STATUS_SENTENCES, Segmentation

WINDOW_HU = (-160.0, 240.0)
"""The abdominal window that radiologists read with."""
PANEL_SIDE = 640
"""Side of each of the two square panels, in pixels."""
COLORS = {ORGAN_LABEL: (80, 200, 255), TUMOR_LABEL: (255, 90, 60)}
"""Of the outlines and their legend, and of nothing else in the picture."""
TRUTH_COLOR = (255, 190, 60)
"""Of the outline that an expert drew."""
_TEXT, _DIM_TEXT, _DOUBT = (235, 235, 235), (165, 165, 165), (255, 205, 90)
_BACKGROUND, _PANEL_BACKGROUND = (22, 22, 24), (0, 0, 0)
_MARGIN, _LINE, _SWATCH = 16, 24, 14
_OUTLINE = 2
_CONTEXT_MM = 30.0
_SCALE_BARS_MM = (50, 20, 10, 5)
_PANELS_PER_SCALE_BAR = 3
_COMPARED_SIDE, _COMPARED_ACROSS = 420, 3


@dataclass(frozen=True)
class _View:
    """A window of a slice, enlarged to true proportions in the middle of a panel."""

    rows: slice
    cols: slice
    pixels_per_mm: float
    size: tuple[int, int]
    """Pixels across and down."""
    side: int = PANEL_SIDE
    """Pixels along each side of the panel."""

    @property
    def corner(self) -> tuple[int, int]:
        """Where the image begins in the panel: x and y."""
        return (self.side - self.size[0]) // 2, (self.side - self.size[1]) // 2

    def frame(self, part: "_View") -> tuple[float, float, float, float]:
        """The rectangle of another view of the same slice in this panel: left, top, right, bottom."""
        (left, top), (width, height) = self.corner, self.size
        across, down = width / (self.cols.stop - self.cols.start), height / (self.rows.stop - self.rows.start)
        return (
            left + (part.cols.start - self.cols.start) * across,
            top + (part.rows.start - self.rows.start) * down,
            left + (part.cols.stop - self.cols.start) * across - 1,
            top + (part.rows.stop - self.rows.start) * down - 1,
        )


def render_preview(segmentation: Segmentation) -> Image.Image:
    """Draw the most telling slice: all of it on the left and, where there is an organ, that enlarged on the right.

    The slice is the one with most tumour; without tumour, the one with most organ; without either, the middle one.
    Outlines run along the voxels' edges, so that what they enclose is exactly the mask. The picture is as radiologists
    look at it: the patient's right on the left side. A frame on the left shows what is enlarged on the right.
    """
    index = telling_slice(segmentation.mask)
    image, mask = segmentation.volume.voxels[index], segmentation.mask[index]
    spacing = segmentation.volume.spacing_mm[1:]
    whole = _view(slice(0, mask.shape[0]), slice(0, mask.shape[1]), spacing)
    if not mask.any():
        return _page([_panel(image, mask, whole, "whole slice")], segmentation, index)
    close = _view(*_around_organ(mask, spacing), spacing)
    enlarged = f"enlarged {close.pixels_per_mm / whole.pixels_per_mm:.1f} times"
    panels = [_panel(image, mask, whole, "whole slice", whole.frame(close)), _panel(image, mask, close, enlarged)]
    return _page(panels, segmentation, index)


def render_comparison(segmentation: Segmentation, truth: npt.NDArray[np.uint8], source: str) -> Image.Image:
    """Draw every slice of a scan that has few, around the pancreas, with the outline found and that of an expert.

    The outline found runs inside the edge of what it encloses and the expert's outside, so that both are seen where
    they agree.

    Args:
        segmentation: What was found.
        truth: `[z, row, col]`, what the expert drew: 0, or 1 where there is pancreas.
        source: Where the scan and the truth come from; stands below.
    """
    shown = range(len(truth))
    panels = [_compared_slice(segmentation, truth[index], index) for index in shown]
    mean = np.mean([dice(segmentation.mask[index] > 0, truth[index]) for index in shown])
    return _compared_page(panels, segmentation, f"mean Dice {mean:.2f}", source)


def save_preview(segmentation: Segmentation, path: Path, *, overwrite: bool = False) -> None:
    """Write the preview as PNG; raises like `Segmentation.save`."""
    save_picture(render_preview(segmentation), path, overwrite=overwrite)


def save_picture(picture: Image.Image, path: Path, *, overwrite: bool = False) -> None:
    """Write a picture as PNG; raises like `Segmentation.save`."""
    atomic_write(path, lambda file: picture.save(file, format="PNG"), overwrite=overwrite)


def telling_slice(mask: npt.NDArray[np.uint8]) -> int:
    """Choose the slice to show, from a mask `[z, row, col]`."""
    for lowest in (TUMOR_LABEL, ORGAN_LABEL):
        areas = [np.count_nonzero(labels >= lowest) for labels in mask]
        if any(areas):
            return int(np.argmax(areas))
    return len(mask) // 2


def panel_corner(number: int) -> tuple[int, int]:
    """Where panel 0, on the left, or panel 1 begins in the picture: x and y."""
    return _MARGIN + number * (PANEL_SIDE + _MARGIN), _MARGIN + _LINE + _MARGIN // 2


def _around_organ(mask: npt.NDArray[np.uint8], spacing: tuple[float, float]) -> tuple[slice, slice]:
    """A square of tissue around the organ with some context; oblong where the image ends."""
    present = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1)]
    extents_mm = [(int(p[-1]) + 1 - int(p[0])) * step for p, step in zip(present, spacing, strict=True)]
    side_mm = max(extents_mm) + 2 * _CONTEXT_MM
    window = []
    for axis, length in enumerate(mask.shape):
        side = min(length, round(side_mm / spacing[axis]))
        middle = (int(present[axis][0]) + int(present[axis][-1]) + 1) // 2
        start = min(max(0, middle - side // 2), length - side)
        window.append(slice(start, start + side))
    return window[0], window[1]


def _view(rows: slice, cols: slice, spacing: tuple[float, float], side: int = PANEL_SIDE) -> _View:
    rows_mm, cols_mm = (rows.stop - rows.start) * spacing[0], (cols.stop - cols.start) * spacing[1]
    scale = side / max(rows_mm, cols_mm)
    return _View(rows, cols, scale, (max(1, round(cols_mm * scale)), max(1, round(rows_mm * scale))), side)


def _panel(
    image: npt.NDArray[np.int16],
    mask: npt.NDArray[np.uint8],
    view: _View,
    caption: str,
    frame: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Enlarge a window of a slice `[row, col]` and write on it what it takes to read it."""
    low, high = WINDOW_HU
    window = (view.rows, view.cols)
    grey = np.clip((image[window].astype(np.float32) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    panel = Image.new("RGB", (view.side, view.side), _PANEL_BACKGROUND)
    panel.paste(Image.fromarray(grey).resize(view.size, Image.Resampling.BICUBIC), view.corner)
    if frame is not None:
        ImageDraw.Draw(panel).rectangle(frame, outline=_TEXT)
    _draw_annotations(panel, view, caption)
    for label, color in COLORS.items():
        panel.paste(color, view.corner, Image.fromarray(_outline(_covered(mask >= label, view))))
    return panel


def _covered(region: npt.NDArray[np.bool_], view: _View) -> npt.NDArray[np.bool_]:
    """Pixels of a view that a region of the slice covers."""
    window = Image.fromarray(region[view.rows, view.cols].astype(np.uint8) * 255)
    # The box filter enlarges like the nearest neighbour, and does not lose a voxel where it has to reduce.
    return np.asarray(window.resize(view.size, Image.Resampling.BOX)) > 0


def _outline(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of a region within two pixels of its edge."""
    padded = np.pad(region, _OUTLINE)
    eroded = region.copy()
    for row in range(2 * _OUTLINE + 1):
        for col in range(2 * _OUTLINE + 1):
            eroded &= padded[row : row + region.shape[0], col : col + region.shape[1]]
    return region & ~eroded


def _outline_around(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels outside a region within two pixels of its edge."""
    outside = _outline(np.pad(~region, _OUTLINE, constant_values=True))
    return outside[_OUTLINE:-_OUTLINE, _OUTLINE:-_OUTLINE]


def _draw_annotations(panel: Image.Image, view: _View, caption: str) -> None:
    """Sides of the patient, scale bar and caption, readable on any tissue."""
    draw, side, inset = ImageDraw.Draw(panel), view.side, 12
    _draw_on_tissue(draw, (inset, side // 2), "R", "lm", 22)
    _draw_on_tissue(draw, (side - inset, side // 2), "L", "rm", 22)
    _draw_on_tissue(draw, (inset, inset), caption, "lt")
    fitting = [length for length in _SCALE_BARS_MM if length * view.pixels_per_mm <= side // _PANELS_PER_SCALE_BAR]
    if not fitting:
        return
    length = round(fitting[0] * view.pixels_per_mm)
    right, bottom = side - inset, side - inset
    draw.rectangle((right - length - 1, bottom - 4, right, bottom), fill=(0, 0, 0))
    draw.rectangle((right - length, bottom - 3, right - 1, bottom - 1), fill=_TEXT)
    name = f"{fitting[0] // 10} cm" if fitting[0] >= 10 else f"{fitting[0]} mm"
    _draw_on_tissue(draw, (right - length // 2, bottom - 9), name, "mb")


def _draw_on_tissue(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, anchor: str, size: int = 16) -> None:
    """Write on a dark plate: thin letters drown in the grain of the image."""
    font = _font(size)
    left, top, right, bottom = draw.textbbox(place, text, font, anchor=anchor)
    draw.rectangle((left - 5, top - 4, right + 4, bottom + 3), fill=_PANEL_BACKGROUND)
    draw.text(place, text, _TEXT, font, anchor=anchor)


def _compared_slice(segmentation: Segmentation, truth: npt.NDArray[np.uint8], index: int) -> Image.Image:
    """Draw one slice `[row, col]` around what was found in it and what was drawn."""
    image, mask = segmentation.volume.voxels[index], segmentation.mask[index]
    spacing, either = segmentation.volume.spacing_mm[1:], np.maximum(mask, truth)
    everything = (slice(0, mask.shape[0]), slice(0, mask.shape[1]))
    rows, cols = _around_organ(either, spacing) if either.any() else everything
    view = _view(rows, cols, spacing, _COMPARED_SIDE)
    panel = _panel(image, mask, view, f"slice {index + 1}, Dice {dice(mask > 0, truth):.2f}")
    panel.paste(TRUTH_COLOR, view.corner, Image.fromarray(_outline_around(_covered(truth > 0, view))))
    return panel


def _compared_page(panels: list[Image.Image], segmentation: Segmentation, score: str, source: str) -> Image.Image:
    """Put panels in rows under a title and above a legend."""
    grid, font, bundle = _in_rows(panels), _font(15), segmentation.provenance["bundle"]
    room, top = grid.width - 2 * _MARGIN, panel_corner(0)[1]
    notes = [line for text in (source, bundle["intended_use"]) for line in _wrapped(text, font, room)]
    page = Image.new("RGB", (grid.width, top + grid.height + _LINE * (1 + len(notes))), _BACKGROUND)
    page.paste(grid, (0, top))
    draw, place, middle = (
        ImageDraw.Draw(page),
        _MARGIN // 2 + _LINE // 2 + 2,
        top + grid.height + _LINE // 2 - _MARGIN // 2,
    )
    draw.text((_MARGIN + room, place), score, _TEXT, font, anchor="rm")
    name = _shortened(segmentation.volume.name, _font(18), room - 2 * _MARGIN - font.getlength(score))
    draw.text((_MARGIN, place), name, _TEXT, _font(18), anchor="lm")
    left = _draw_entry(draw, _MARGIN, middle, COLORS[ORGAN_LABEL], f"found by {bundle['name']}")
    _draw_entry(draw, left, middle, TRUTH_COLOR, "drawn by an expert")
    for line, text in enumerate(notes, start=1):
        draw.text((_MARGIN, middle + line * _LINE), text, _DIM_TEXT, font, anchor="lm")
    return page


def _in_rows(panels: list[Image.Image]) -> Image.Image:
    """Put panels in rows, with a margin on the left and below."""
    step, across = _COMPARED_SIDE + _MARGIN, min(len(panels), _COMPARED_ACROSS)
    grid = Image.new("RGB", (across * step + _MARGIN, -(-len(panels) // across) * step), _BACKGROUND)
    for number, panel in enumerate(panels):
        row, col = divmod(number, across)
        grid.paste(panel, (_MARGIN + col * step, row * step))
    return grid


def _page(panels: list[Image.Image], segmentation: Segmentation, index: int) -> Image.Image:
    """Put panels side by side under a title and above a legend."""
    width, font = panel_corner(len(panels))[0], _font(15)
    intended_use = _wrapped(segmentation.provenance["bundle"]["intended_use"], font, width - 2 * _MARGIN)
    legend_lines = 1 if segmentation.measurements.organ_ml else 0
    legend_top = panel_corner(0)[1] + PANEL_SIDE + _MARGIN // 2
    height = legend_top + _LINE * (legend_lines + len(intended_use)) + _MARGIN // 2
    page = Image.new("RGB", (width, height), _BACKGROUND)
    for number, panel in enumerate(panels):
        page.paste(panel, panel_corner(number))
    draw, middle = ImageDraw.Draw(page), legend_top + _LINE // 2
    _draw_title(draw, segmentation, index, width)
    _draw_legend(draw, segmentation, middle)
    for line, text in enumerate(intended_use, start=legend_lines):
        draw.text((_MARGIN, middle + line * _LINE), text, _DIM_TEXT, font, anchor="lm")
    return page


def _draw_title(draw: ImageDraw.ImageDraw, segmentation: Segmentation, index: int, width: int) -> None:
    """The case and the slice on the left, what was found on the right; a long name is shortened."""
    middle = _MARGIN // 2 + _LINE // 2 + 2
    status, doubtful = (
        STATUS_SENTENCES[segmentation.status],
        segmentation.status not in ("ok", "no_tumor", "organ_only", "tumor_only", "no_tumor_only"),
    )
    draw.text((width - _MARGIN, middle), status, _DOUBT if doubtful else _TEXT, _font(15), anchor="rm")
    place = f", slice {index + 1} of {len(segmentation.mask)} from below"
    font = _font(18)
    room = width - 3 * _MARGIN - _font(15).getlength(status) - font.getlength(place)
    draw.text((_MARGIN, middle), _shortened(segmentation.volume.name, font, room) + place, _TEXT, font, anchor="lm")


def _draw_legend(draw: ImageDraw.ImageDraw, segmentation: Segmentation, middle: int) -> None:
    """What each outline is, with the volume in the whole scan."""
    found = segmentation.measurements
    organ = "pancreas with tumour" if segmentation.tumor_sought else "pancreas"
    entries = ((ORGAN_LABEL, organ, found.organ_ml), (TUMOR_LABEL, "tumour", found.tumor_ml))
    left = float(_MARGIN)
    for label, name, volume_ml in entries:
        if volume_ml == 0 or (label == ORGAN_LABEL and not segmentation.organ_sought):
            continue
        left = _draw_entry(draw, left, middle, COLORS[label], f"{name} {volume_ml:.1f} ml")


def _draw_entry(draw: ImageDraw.ImageDraw, left: float, middle: int, color: tuple[int, int, int], text: str) -> float:
    """Draw an entry of a legend, and return where the next one begins."""
    swatch, font = (left, middle - _SWATCH // 2, left + _SWATCH - 1, middle + _SWATCH // 2 - 1), _font(15)
    draw.rectangle(swatch, outline=color, width=_OUTLINE)
    draw.text((left + _SWATCH + 8, middle), text, _TEXT, font, anchor="lm")
    return left + _SWATCH + 8 + font.getlength(text) + 2 * _MARGIN


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """A text on one line, with an ellipsis for what does not fit."""
    text = " ".join(text.split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Break a text into lines between words, and inside a word that fills a line."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines if lines[0] else lines[1:]
