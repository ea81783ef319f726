"""Draw a slice for radiologists: abdominal window, sides of the patient, scale bar and outlines."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL

WINDOW_HU = (-160.0, 240.0)
"""The standard abdominal window."""
PANEL_SIDE = 640
"""Default side of a square panel, in pixels."""
COLORS = {ORGAN_LABEL: (80, 200, 255), TUMOR_LABEL: (255, 90, 60)}
"""Colors of the outlines and their legend; nothing else in the picture uses them."""
TEXT = (235, 235, 235)
OUTLINE = 2
"""Width of outlines, in pixels."""
_BACKGROUND = (0, 0, 0)
_CONTEXT_MM = 30.0
_SCALE_BARS_MM = (50, 20, 10, 5)
_PANELS_PER_SCALE_BAR = 3
_DASH = 5
"""Length of a dash and of a gap, in pixels."""
_SMALL_SIDE = 400
"""Panels below this side have smaller letters."""


@dataclass(frozen=True, slots=True)
class Directions:
    """Where the sides of a panel lie in the patient."""

    left: str
    right: str
    top: str
    bottom: str


AXIAL, CORONAL, SAGITTAL = (
    Directions("R", "L", "A", "P"),
    Directions("R", "L", "S", "I"),
    Directions("A", "P", "S", "I"),
)


@dataclass(frozen=True)
class View:
    """A region of a slice, scaled to true proportions and centered in a panel."""

    rows: slice
    cols: slice
    pixels_per_mm: float
    size: tuple[int, int]
    """Width and height in pixels."""
    side: int = PANEL_SIDE
    """Side of the panel in pixels."""

    @property
    def corner(self) -> tuple[int, int]:
        """Top left corner (x, y) of the image in the panel, in pixels."""
        return (self.side - self.size[0]) // 2, (self.side - self.size[1]) // 2

    def frame(self, part: "View") -> tuple[float, float, float, float]:
        """Return the outline (left, top, right, bottom) of another view of the same slice in this panel, in pixels."""
        (left, top), (width, height) = self.corner, self.size
        across, down = width / (self.cols.stop - self.cols.start), height / (self.rows.stop - self.rows.start)
        return (
            left + (part.cols.start - self.cols.start) * across,
            top + (part.rows.start - self.rows.start) * down,
            left + (part.cols.stop - self.cols.start) * across - 1,
            top + (part.rows.stop - self.rows.start) * down - 1,
        )


def around_organ(mask: npt.NDArray[np.uint8], spacing: tuple[float, float]) -> tuple[slice, slice]:
    """Return the rows and columns of a square (in mm) around the organ with some context, clipped to the image.

    Args:
        mask: `[row, col]`, not empty.
        spacing: Distance in mm between rows and columns.
    """
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


def view_of(rows: slice, cols: slice, spacing: tuple[float, float], side: int = PANEL_SIDE) -> View:
    """Fit a region of a slice into a panel of `side` pixels; `spacing` is that of rows and columns, in mm."""
    rows_mm, cols_mm = (rows.stop - rows.start) * spacing[0], (cols.stop - cols.start) * spacing[1]
    scale = side / max(rows_mm, cols_mm)
    return View(rows, cols, scale, (max(1, round(cols_mm * scale)), max(1, round(rows_mm * scale))), side)


def slice_panel(
    image: npt.NDArray[np.int16],
    mask: npt.NDArray[np.uint8],
    view: View,
    caption: str,
    frame: tuple[float, float, float, float] | None = None,
    *,
    directions: Directions = AXIAL,
    elsewhere: npt.NDArray[np.bool_] | None = None,
) -> Image.Image:
    """Draw a view of a slice `[row, col]` with outlines and annotations.

    Args:
        image: The slice, HU.
        mask: Its labels.
        view: What is drawn of it.
        caption: Text in the upper left corner.
        frame: A rectangle (left, top, right, bottom) to draw, in pixels of the panel.
        directions: Where its sides lie in the patient.
        elsewhere: `[row, col]`, tumor in front of the slice or behind it, whose outline is dashed.
    """
    low, high = WINDOW_HU
    window = (view.rows, view.cols)
    grey = np.clip((image[window].astype(np.float32) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    panel = Image.new("RGB", (view.side, view.side), _BACKGROUND)
    panel.paste(Image.fromarray(grey).resize(view.size, Image.Resampling.BICUBIC), view.corner)
    if frame is not None:
        ImageDraw.Draw(panel).rectangle(frame, outline=TEXT)
    _draw_annotations(panel, view, caption, directions)
    if elsewhere is not None:
        panel.paste(COLORS[TUMOR_LABEL], view.corner, Image.fromarray(_dashed(outline(covered(elsewhere, view)))))
    for label, color in COLORS.items():
        panel.paste(color, view.corner, Image.fromarray(outline(covered(mask >= label, view))))
    return panel


def _dashed(lines: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return lines with gaps."""
    rows, cols = np.indices(lines.shape)
    return np.asarray(lines & ((rows + cols) // _DASH % 2 == 0))


def covered(region: npt.NDArray[np.bool_], view: View) -> npt.NDArray[np.bool_]:
    """Return the pixels of a view that a region of the slice covers, `[row, col]`."""
    window = Image.fromarray(region[view.rows, view.cols].astype(np.uint8) * 255)
    # The box filter enlarges like nearest neighbour, but loses no voxel when it reduces.
    return np.asarray(window.resize(view.size, Image.Resampling.BOX)) > 0


def outline(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of a region within `OUTLINE` pixels of its edge."""
    padded = np.pad(region, OUTLINE)
    eroded = region.copy()
    for row in range(2 * OUTLINE + 1):
        for col in range(2 * OUTLINE + 1):
            eroded &= padded[row : row + region.shape[0], col : col + region.shape[1]]
    return region & ~eroded


def outline_around(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels outside a region within `OUTLINE` pixels of its edge."""
    outside = outline(np.pad(~region, OUTLINE, constant_values=True))
    return outside[OUTLINE:-OUTLINE, OUTLINE:-OUTLINE]


def _draw_annotations(panel: Image.Image, view: View, caption: str, directions: Directions) -> None:
    """Draw the sides of the patient, the window, the scale bar and the caption so that they are readable on tissue."""
    draw, side, inset = ImageDraw.Draw(panel), view.side, 12
    large, small = (22, 16) if side >= _SMALL_SIDE else (16, 12)
    low, high = WINDOW_HU
    _draw_on_tissue(draw, (inset, side // 2), directions.left, "lm", large)
    _draw_on_tissue(draw, (side - inset, side // 2), directions.right, "rm", large)
    _draw_on_tissue(draw, (side // 2, inset), directions.top, "mt", large)
    _draw_on_tissue(draw, (side // 2, side - inset), directions.bottom, "mb", large)
    _draw_on_tissue(draw, (inset, inset), caption, "lt", small)
    _draw_on_tissue(draw, (inset, side - inset), f"W {high - low:.0f}  L {(high + low) / 2:.0f}", "lb", small)
    _draw_scale_bar(draw, view, inset, small)


def _draw_scale_bar(draw: ImageDraw.ImageDraw, view: View, inset: int, size: int) -> None:
    """Draw the longest scale bar that fits, if there is one."""
    side = view.side
    fitting = [length for length in _SCALE_BARS_MM if length * view.pixels_per_mm <= side // _PANELS_PER_SCALE_BAR]
    if not fitting:
        return
    # In a panel spanning many metres, the shortest bar is less than a pixel.
    length = max(1, round(fitting[0] * view.pixels_per_mm))
    right, bottom = side - inset, side - inset
    draw.rectangle((right - length - 1, bottom - 4, right, bottom), fill=(0, 0, 0))
    draw.rectangle((right - length, bottom - 3, right - 1, bottom - 1), fill=TEXT)
    name = f"{fitting[0] // 10} cm" if fitting[0] >= 10 else f"{fitting[0]} mm"
    _draw_on_tissue(draw, (right - length // 2, bottom - 9), name, "mb", size)


def _draw_on_tissue(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, anchor: str, size: int = 16) -> None:
    """Draw text on a dark background, because thin letters are unreadable on the noise of the image."""
    font = load_font(size)
    left, top, right, bottom = draw.textbbox(place, text, font, anchor=anchor)
    draw.rectangle((left - 5, top - 4, right + 4, bottom + 3), fill=_BACKGROUND)
    draw.text(place, text, TEXT, font, anchor=anchor)


def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font used in all pictures."""
    return ImageFont.load_default(size)
