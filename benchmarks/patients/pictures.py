"""Pictures of patients: slices with the true and the found outline, drawn as the package draws its previews."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.patients.cases import Mask, Patient
from cascade_rt.common.metrics import dice
from cascade_rt.results.slice_panel import TEXT, View, around_organ, covered, load_font, outline, slice_panel, view_of

TRUE_COLOR, FOUND_COLOR = (110, 230, 120), (255, 120, 70)
EVEN_SLICES = 4
"""Slices spread evenly over the pancreas; that with most of it comes beside them."""
WORST_CASES = 3
_PANEL = 400
"""Side of a panel on the page, in pixels."""
_MARGIN, _LINE = 12, 30


def shown_slices(truth: Mask, count: int = EVEN_SLICES) -> list[int]:
    """Slices spread evenly over the extent of the pancreas, away from its ends, and the one with most of it.

    Args:
        truth: `[z, row, col]`.
        count: How many, beside the one with most.

    Returns:
        Their indices from below, each once.
    """
    present = np.flatnonzero(truth.any(axis=(1, 2)))
    even = np.linspace(present[0], present[-1], count + 2)[1:-1]
    # The nearest slice that holds some: pancreas may be missing in between.
    nearest = [int(present[np.argmin(np.abs(present - place))]) for place in even]
    most = int(np.argmax(np.count_nonzero(truth, axis=(1, 2))))
    return sorted({*nearest, most})


def draw_patient(patient: Patient, found: Mask) -> Image.Image:
    """Draw the shown slices of a patient side by side, all at the same place and scale, below a title."""
    indices = shown_slices(patient.truth)
    area = np.any(patient.truth[indices] | found[indices], axis=0)
    spacing = patient.volume.spacing_mm[1:]
    view = view_of(*around_organ(np.asarray(area, np.uint8), spacing), spacing)
    panels = [_panel(patient, found, index, view) for index in indices]
    page = Image.new("RGB", (_MARGIN + len(panels) * (_PANEL + _MARGIN), _LINE + _PANEL + _MARGIN), (22, 22, 24))
    for number, panel in enumerate(panels):
        page.paste(panel, (_MARGIN + number * (_PANEL + _MARGIN), _LINE))
    _draw_title(page, patient, found)
    return page


def contact_sheet(pages: Sequence[Image.Image]) -> Image.Image:
    """Put pages below one another."""
    sheet = Image.new("RGB", (max(page.width for page in pages), sum(page.height for page in pages)), (22, 22, 24))
    top = 0
    for page in pages:
        sheet.paste(page, (0, top))
        top += page.height
    return sheet


def _panel(patient: Patient, found: Mask, index: int, view: View) -> Image.Image:
    image, nothing = patient.volume.voxels[index], np.zeros(found.shape[1:], np.uint8)
    caption = f"slice {index + 1} of {len(found)}, Dice {dice(found[index], patient.truth[index]):.2f}"
    panel = slice_panel(image, nothing, view, caption)
    for mask, color in ((patient.truth, TRUE_COLOR), (found, FOUND_COLOR)):
        panel.paste(color, view.corner, Image.fromarray(outline(covered(mask[index], view))))
    return panel.resize((_PANEL, _PANEL), Image.Resampling.LANCZOS)


def _draw_title(page: Image.Image, patient: Patient, found: Mask) -> None:
    draw, font, middle = ImageDraw.Draw(page), load_font(17), _LINE // 2
    left = float(_MARGIN)
    title = f"{patient.case.name}: Dice {dice(found, patient.truth):.3f} over all slices"
    for text, color in ((title, TEXT), ("true", TRUE_COLOR), ("found", FOUND_COLOR)):
        draw.text((left, middle), text, color, font, anchor="lm")
        left += font.getlength(text) + 2 * _MARGIN
