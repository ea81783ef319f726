"""Preview pictures, to judge a mask at a glance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cascade_rt.common.atomic import atomic_write
from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.metrics import dice
from cascade_rt.results.segmentation import STATUS_SENTENCES, Segmentation
from cascade_rt.results.slice_panel import (
    COLORS,
    CORONAL,
    OUTLINE,
    PANEL_SIDE,
    SAGITTAL,
    TEXT,
    Directions,
    around_organ,
    covered,
    load_font,
    outline_around,
    slice_panel,
    view_of,
)

TRUTH_COLOR = (255, 190, 60)
"""Color of the outline drawn by an expert."""
_DIM_TEXT, _DOUBT = (165, 165, 165), (255, 205, 90)
_BACKGROUND = (22, 22, 24)
_MARGIN, _LINE, _SWATCH = 16, 24, 14
_COMPARED_SIDE, _COMPARED_ACROSS = 420, 3
SIDE_PANEL = (PANEL_SIDE - _MARGIN) // 2
"""Side of the coronal and the sagittal panel, in pixels."""


def render_preview(segmentation: Segmentation) -> Image.Image:
    """Draw the most informative slice: whole and, if there is an organ, enlarged, with a coronal and a sagittal one.

    The slice is the one with most tumor; without tumor, the one with most organ; without either, the middle one. So are
    the coronal and the sagittal one on the right, which are left out if the slices are no stack. Outlines follow the
    voxel edges, so that they enclose exactly the mask; tumor in front of these two or behind them has a dashed outline,
    so that every lesion is seen. The picture uses the radiological convention: the patient's right is on the left. A
    frame shows what is enlarged.
    """
    index = telling_slice(segmentation.mask)
    image, mask = segmentation.volume.voxels[index], segmentation.mask[index]
    spacing = segmentation.volume.spacing_mm[1:]
    whole = view_of(slice(0, mask.shape[0]), slice(0, mask.shape[1]), spacing)
    caption = f"whole slice, {_position(segmentation, 0, index)}"
    panels = [slice_panel(image, mask, whole, caption)]
    if mask.any():
        close = view_of(*around_organ(mask, spacing), spacing)
        enlarged = f"enlarged {close.pixels_per_mm / whole.pixels_per_mm:.1f} times"
        panels = [
            slice_panel(image, mask, whole, caption, whole.frame(close)),
            slice_panel(image, mask, close, enlarged),
        ]
    return _page(panels, _other_planes(segmentation), segmentation, index)


def _other_planes(segmentation: Segmentation) -> list[Image.Image]:
    """Draw the most informative coronal and sagittal slice of a stack of slices."""
    if not _is_stack(segmentation):
        return []
    return [_plane(segmentation, 1, CORONAL, "coronal"), _plane(segmentation, 2, SAGITTAL, "sagittal")]


def _is_stack(segmentation: Segmentation) -> bool:
    return len(segmentation.mask) > 1 and not segmentation.volume.scattered


def _plane(segmentation: Segmentation, axis: int, directions: Directions, name: str) -> Image.Image:
    """Draw the slice across an axis of `[z, row, col]`, head up."""
    index = telling_slice(np.moveaxis(segmentation.mask, axis, 0))
    # Rows of the picture run from the head to the feet.
    image, mask = (
        np.ascontiguousarray(np.take(array, index, axis)[::-1])
        for array in (segmentation.volume.voxels, segmentation.mask)
    )
    silhouette = (segmentation.mask == TUMOR_LABEL).any(axis=axis)[::-1]
    spacing = segmentation.volume.spacing_mm[0], segmentation.volume.spacing_mm[3 - axis]
    view = view_of(slice(0, mask.shape[0]), slice(0, mask.shape[1]), spacing, SIDE_PANEL)
    caption = f"{name}, {_position(segmentation, axis, index)}"
    return slice_panel(image, mask, view, caption, directions=directions, elsewhere=silhouette)


def _position(segmentation: Segmentation, axis: int, index: int) -> str:
    """Return where the middle of a slice across an axis of `[z, row, col]` lies in the world, such as S 12.5 mm."""
    center = [(side - 1) / 2 for side in segmentation.mask.shape]
    center[axis] = index
    world = float((segmentation.volume.affine @ [*center, 1.0])[2 - axis])
    positive, negative = ("SI", "AP", "RL")[axis]
    return f"{positive if world >= 0 else negative} {abs(world):.1f} mm"


@dataclass(frozen=True, slots=True)
class Truth:
    """The true label of a scan, for comparison."""

    label: npt.NDArray[np.uint8]
    """`[z, row, col]`: 0 background, 1 pancreas, 2 tumor."""
    name: str = "drawn by an expert"
    lowest: int = ORGAN_LABEL
    """The lowest label that is compared: that of the pancreas, which a tumor is part of, or that of the tumor."""

    def dice(self, mask: npt.NDArray[np.uint8]) -> list[float]:
        """Return the Dice of each slice with a mask `[z, row, col]`."""
        return [dice(found >= self.lowest, true >= self.lowest) for found, true in zip(mask, self.label, strict=True)]


def render_comparison(segmentation: Segmentation, truth: Truth, source: str) -> Image.Image:
    """Draw every slice of a scan with few slices, around the pancreas, with the outlines of the mask and the truth.

    The outline of the mask lies just inside its edge and that of the truth just outside, so that both are visible
    where they agree.

    Args:
        segmentation: The segmentation.
        truth: The true label.
        source: Where the scan and the truth come from; printed below the panels.
    """
    scores = truth.dice(segmentation.mask)
    panels = [_compared_slice(segmentation, truth, index, score) for index, score in enumerate(scores)]
    return _compared_page(panels, segmentation, truth, f"mean Dice {np.mean(scores):.2f}", source)


def save_preview(segmentation: Segmentation, path: Path, *, overwrite: bool = False) -> None:
    """Write the preview as PNG. Raises like `Segmentation.save`."""
    save_picture(render_preview(segmentation), path, overwrite=overwrite)


def save_picture(picture: Image.Image, path: Path, *, overwrite: bool = False) -> None:
    """Write a picture as PNG. Raises like `Segmentation.save`."""
    atomic_write(path, lambda file: picture.save(file, format="PNG"), overwrite=overwrite)


def telling_slice(mask: npt.NDArray[np.uint8]) -> int:
    """Return the index of the slice to show, from a mask `[z, row, col]`."""
    for lowest in (TUMOR_LABEL, ORGAN_LABEL):
        areas = np.count_nonzero(mask >= lowest, axis=(1, 2))
        if areas.any():
            return int(np.argmax(areas))
    return len(mask) // 2


def panel_corner(number: int) -> tuple[int, int]:
    """Return the top left corner (x, y) of a panel in the picture, in pixels; panel 0 is the leftmost."""
    return _MARGIN + number * (PANEL_SIDE + _MARGIN), _MARGIN + _LINE + _MARGIN // 2


def _compared_slice(segmentation: Segmentation, truth: Truth, index: int, score: float) -> Image.Image:
    """Draw one slice, cropped around the union of its mask and the truth."""
    image, mask, label = segmentation.volume.voxels[index], segmentation.mask[index], truth.label[index]
    spacing, either = segmentation.volume.spacing_mm[1:], np.maximum(mask, label)
    everything = (slice(0, mask.shape[0]), slice(0, mask.shape[1]))
    rows, cols = around_organ(either, spacing) if either.any() else everything
    view = view_of(rows, cols, spacing, _COMPARED_SIDE)
    panel = slice_panel(image, mask, view, f"slice {index + 1}, Dice {score:.2f}")
    panel.paste(TRUTH_COLOR, view.corner, Image.fromarray(outline_around(covered(label >= truth.lowest, view))))
    return panel


def _compared_page(
    panels: list[Image.Image], segmentation: Segmentation, truth: Truth, score: str, source: str
) -> Image.Image:
    """Arrange panels in rows, with a title above and a legend below."""
    grid, font, bundle = _in_rows(panels), load_font(15), segmentation.provenance["bundle"]
    room, top = grid.width - 2 * _MARGIN, panel_corner(0)[1]
    notes = [line for text in (source, bundle["intended_use"]) for line in _wrapped(text, font, room)]
    page = Image.new("RGB", (grid.width, top + grid.height + _LINE * (1 + len(notes))), _BACKGROUND)
    page.paste(grid, (0, top))
    draw, place, middle = (
        ImageDraw.Draw(page),
        _MARGIN // 2 + _LINE // 2 + 2,
        top + grid.height + _LINE // 2 - _MARGIN // 2,
    )
    draw.text((_MARGIN + room, place), score, TEXT, font, anchor="rm")
    name = _shortened(segmentation.volume.name, load_font(18), room - 2 * _MARGIN - font.getlength(score))
    draw.text((_MARGIN, place), name, TEXT, load_font(18), anchor="lm")
    left = _draw_entry(draw, _MARGIN, middle, COLORS[truth.lowest], f"found by {bundle['name']}")
    left = _draw_entry(draw, left, middle, TRUTH_COLOR, truth.name)
    if truth.lowest != ORGAN_LABEL and segmentation.organ_sought:
        _draw_entry(draw, left, middle, COLORS[ORGAN_LABEL], "pancreas found")
    for line, text in enumerate(notes, start=1):
        draw.text((_MARGIN, middle + line * _LINE), text, _DIM_TEXT, font, anchor="lm")
    return page


def _in_rows(panels: list[Image.Image]) -> Image.Image:
    """Arrange panels in rows, with a margin on the left and below."""
    step, across = _COMPARED_SIDE + _MARGIN, min(len(panels), _COMPARED_ACROSS)
    grid = Image.new("RGB", (across * step + _MARGIN, -(-len(panels) // across) * step), _BACKGROUND)
    for number, panel in enumerate(panels):
        row, col = divmod(number, across)
        grid.paste(panel, (_MARGIN + col * step, row * step))
    return grid


def other_plane_corner(number: int, axial_panels: int) -> tuple[int, int]:
    """Return the top left corner (x, y) of the coronal (0) or sagittal (1) panel, in pixels."""
    left, top = panel_corner(axial_panels)
    return left, top + number * (SIDE_PANEL + _MARGIN)


def _page(
    panels: list[Image.Image], other_planes: list[Image.Image], segmentation: Segmentation, index: int
) -> Image.Image:
    """Arrange panels side by side, with the other planes on the right, a title above and a legend below."""
    width, font = panel_corner(len(panels))[0] + (SIDE_PANEL + _MARGIN if other_planes else 0), load_font(15)
    intended_use = _wrapped(segmentation.provenance["bundle"]["intended_use"], font, width - 2 * _MARGIN)
    legend_lines = 1 if segmentation.measurements.organ_ml else 0
    legend_top = panel_corner(0)[1] + PANEL_SIDE + _MARGIN // 2
    height = legend_top + _LINE * (legend_lines + len(intended_use)) + _MARGIN // 2
    page = Image.new("RGB", (width, height), _BACKGROUND)
    for number, panel in enumerate(panels):
        page.paste(panel, panel_corner(number))
    for number, panel in enumerate(other_planes):
        page.paste(panel, other_plane_corner(number, len(panels)))
    draw, middle = ImageDraw.Draw(page), legend_top + _LINE // 2
    _draw_title(draw, segmentation, index, width)
    _draw_legend(draw, segmentation, index, middle)
    for line, text in enumerate(intended_use, start=legend_lines):
        draw.text((_MARGIN, middle + line * _LINE), text, _DIM_TEXT, font, anchor="lm")
    return page


def _draw_title(draw: ImageDraw.ImageDraw, segmentation: Segmentation, index: int, width: int) -> None:
    """Draw the case and the slice on the left, and the status on the right. Long names are shortened."""
    middle = _MARGIN // 2 + _LINE // 2 + 2
    status, doubtful = (
        STATUS_SENTENCES[segmentation.status],
        segmentation.status not in ("ok", "no_tumor", "organ_only", "tumor_only", "no_tumor_only"),
    )
    draw.text((width - _MARGIN, middle), status, _DOUBT if doubtful else TEXT, load_font(15), anchor="rm")
    place = f", slice {index + 1} of {len(segmentation.mask)} from below"
    font = load_font(18)
    room = width - 3 * _MARGIN - load_font(15).getlength(status) - font.getlength(place)
    draw.text((_MARGIN, middle), _shortened(segmentation.volume.name, font, room) + place, TEXT, font, anchor="lm")


def _draw_legend(draw: ImageDraw.ImageDraw, segmentation: Segmentation, index: int, middle: int) -> None:
    """Draw the name of each outline, with its volume in the whole scan and the number of lesions."""
    found = segmentation.measurements
    organ = "pancreas with tumor" if segmentation.tumor_sought else "pancreas"
    tumor = f"tumor {found.tumor_ml:.1f} ml, {_lesions(segmentation, index)}"
    if len(found.lesions) > 1 and _is_stack(segmentation):
        tumor += "; dashed: outside the plane"
    entries = ((ORGAN_LABEL, f"{organ} {found.organ_ml:.1f} ml", found.organ_ml), (TUMOR_LABEL, tumor, found.tumor_ml))
    left = float(_MARGIN)
    for label, text, volume_ml in entries:
        if volume_ml == 0 or (label == ORGAN_LABEL and not segmentation.organ_sought):
            continue
        left = _draw_entry(draw, left, middle, COLORS[label], text)


def _lesions(segmentation: Segmentation, index: int) -> str:
    """Return how many lesions there are, and how many of them are in a slice."""
    lesions = segmentation.measurements.lesions
    # A lesion is connected, so it is in each slice from its first to its last.
    here = sum(lesion.first_slice <= index <= lesion.last_slice for lesion in lesions)
    if len(lesions) == 1:
        return "1 lesion"
    return f"{len(lesions)} lesions, {here} in the axial slice"


def _draw_entry(draw: ImageDraw.ImageDraw, left: float, middle: int, color: tuple[int, int, int], text: str) -> float:
    """Draw a legend entry, and return the x coordinate of the next one."""
    swatch, font = (left, middle - _SWATCH // 2, left + _SWATCH - 1, middle + _SWATCH // 2 - 1), load_font(15)
    draw.rectangle(swatch, outline=color, width=OUTLINE)
    draw.text((left + _SWATCH + 8, middle), text, TEXT, font, anchor="lm")
    return left + _SWATCH + 8 + font.getlength(text) + 2 * _MARGIN


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """Return a text on one line, truncated with an ellipsis if it does not fit into `room` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Break a text into lines of at most `width` pixels, between words or inside a word longer than a line."""
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
