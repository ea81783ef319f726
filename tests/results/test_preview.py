"""The picture shows the right slice in true proportions, with outlines in the right place and text that fits."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.config import CascadeConfig
from cascade_rt.data.phantom import make_phantom
from cascade_rt.results.measurements import measure
from cascade_rt.results.preview import (
    COLORS,
    PANEL_SIDE,
    SIDE_PANEL,
    TRUTH_COLOR,
    Truth,
    other_plane_corner,
    panel_corner,
    render_comparison,
    render_preview,
    telling_slice,
)
from cascade_rt.results.segmentation import Segmentation, judge
from cascade_rt.scans.volume import Volume

Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.uint8]

BLACK_HU, WHITE_HU = -160, 240
LABELS, PANELS = (ORGAN_LABEL, TUMOR_LABEL), (0, 1)
SHAPE = (3, 100, 120)


def segmented(
    mask: Mask,
    spacing_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
    voxels: Pixels | None = None,
    *,
    name: str = "case_7",
    intended_use: str = "Research only.",
) -> Segmentation:
    """A segmentation of a scan in the canonical frame; without voxels, of a black one."""
    hu = np.full(mask.shape, BLACK_HU, dtype=np.int16) if voxels is None else voxels.astype(np.int16)
    affine = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
    volume = Volume.from_array(hu.T, affine, name=name)
    found = measure(mask, volume.affine, volume.voxel_volume_ml)
    status = judge(mask, found, CascadeConfig())
    return Segmentation(volume, mask, status, found, {}, (), {}, {"bundle": {"intended_use": intended_use}})


def organ_mask(tumor: bool = True) -> Mask:
    """In the middle slice an organ of 20 x 30 pixels, a little off the middle, with a tumor in it."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1, 35:55, 50:80] = ORGAN_LABEL
    if tumor:
        mask[1, 42:50, 58:72] = TUMOR_LABEL
    return mask


def empty_mask(shape: tuple[int, int, int] = SHAPE) -> Mask:
    return np.zeros(shape, dtype=np.uint8)


def panel(picture: Image.Image, number: int) -> Pixels:
    x, y = panel_corner(number)
    return np.asarray(picture)[y : y + PANEL_SIDE, x : x + PANEL_SIDE]


def colored(pixels: Pixels, label: int) -> npt.NDArray[np.bool_]:
    return np.asarray((pixels == COLORS[label]).all(axis=-1))


def extent(present: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First row or column with something, and one past the last."""
    found = np.flatnonzero(present.any(axis=1 - axis))
    return int(found[0]), int(found[-1]) + 1


def longest_run(line: npt.NDArray[np.bool_]) -> int:
    return max(len(run) for run in "".join("x" if value else " " for value in line.tolist()).split(" "))


def footer_ink(picture: Image.Image) -> Pixels:
    """Below the panels, how far each pixel is from the background."""
    below = np.asarray(picture).astype(int)[panel_corner(0)[1] + PANEL_SIDE :]
    return np.abs(below - below[-1, -1]).sum(axis=-1)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return render_preview(segmented(organ_mask()))


# Which slice


def test_the_slice_with_most_tumor_is_described() -> None:
    mask = empty_mask((5, 8, 8))
    mask[1, :2], mask[2, :4], mask[4] = TUMOR_LABEL, TUMOR_LABEL, ORGAN_LABEL
    assert telling_slice(mask) == 2


def test_without_tumor_the_slice_with_most_organ_is_described() -> None:
    mask = empty_mask((5, 8, 8))
    mask[1, :2], mask[3, :4] = ORGAN_LABEL, ORGAN_LABEL
    assert telling_slice(mask) == 3


@pytest.mark.parametrize(("slices", "middle"), [(1, 0), (5, 2), (6, 3)])
def test_with_nothing_found_the_middle_slice_is_described(slices: int, middle: int) -> None:
    assert telling_slice(empty_mask((slices, 8, 8))) == middle


def test_picture_is_that_of_the_telling_slice() -> None:
    voxels = np.full(SHAPE, BLACK_HU)
    voxels[1] = WHITE_HU
    assert panel(render_preview(segmented(organ_mask(), voxels=voxels)), 0)[PANEL_SIDE // 4, PANEL_SIDE // 2, 0] == 255


# Outlines


@pytest.mark.parametrize("number", PANELS)
@pytest.mark.parametrize("label", LABELS)
def test_both_panels_outline_what_was_found(picture: Image.Image, label: int, number: int) -> None:
    assert colored(panel(picture, number), label).any()


def test_picture_without_tumor_has_nothing_in_its_color() -> None:
    assert not colored(np.asarray(render_preview(segmented(organ_mask(tumor=False)))), TUMOR_LABEL).any()


@pytest.mark.parametrize("label", LABELS)
def test_picture_of_an_empty_mask_has_nothing_in_the_colors(label: int) -> None:
    assert not colored(np.asarray(render_preview(segmented(empty_mask()))), label).any()


@pytest.mark.parametrize("label", LABELS)
def test_the_legend_shows_the_color_of_each_label(picture: Image.Image, label: int) -> None:
    assert colored(np.asarray(picture)[panel_corner(0)[1] + PANEL_SIDE :], label).any()


@pytest.mark.parametrize("spacing_mm", [(3.0, 1.0, 1.0), (5.0, 1.5, 0.7), (1.0, 0.6, 1.4)])
@pytest.mark.parametrize("number", PANELS)
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("axis", [0, 1])
def test_outline_runs_where_the_image_has_the_edge(
    label: int, number: int, axis: int, spacing_mm: tuple[float, float, float]
) -> None:
    # The labelled place is white on black, so that grey 127 marks its edge in the enlarged image.
    mask = organ_mask()
    pixels = panel(render_preview(segmented(mask, spacing_mm, np.where(mask >= label, WHITE_HU, BLACK_HU))), number)
    outline = colored(pixels, label)
    middle = sum(extent(outline, 1 - axis)) // 2
    line = (np.moveaxis(pixels, axis, 0)[:, middle].min(axis=-1) > 127) | np.moveaxis(outline, axis, 0)[:, middle]
    first, end = extent(outline, axis)
    bright = np.flatnonzero(line[first - 20 : end + 20]) + first - 20
    assert [bright[0], bright[-1] + 1] == pytest.approx([first, end], abs=1)


@pytest.mark.parametrize("number", PANELS)
@pytest.mark.parametrize("label", LABELS)
def test_outline_is_two_pixels_wide(picture: Image.Image, label: int, number: int) -> None:
    outline = colored(panel(picture, number), label)
    row = sum(extent(outline, 0)) // 2
    first, end = extent(outline, 1)
    assert np.flatnonzero(outline[row]).tolist() == [first, first + 1, end - 2, end - 1]


def test_outline_is_closed_where_the_image_ends() -> None:
    outline = colored(panel(render_preview(segmented(np.full((1, 50, 50), TUMOR_LABEL, np.uint8))), 0), TUMOR_LABEL)
    assert all(border.all() for border in (outline[0], outline[-1], outline[:, 0], outline[:, -1]))


@pytest.mark.parametrize("number", PANELS)
def test_single_voxel_of_a_large_slice_is_seen(number: int) -> None:
    mask = empty_mask((1, 1024, 1024))
    mask[0, 501, 403] = TUMOR_LABEL
    assert colored(panel(render_preview(segmented(mask, (1.0, 0.4, 0.4))), number), TUMOR_LABEL).any()


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    st.data(),
)
def test_tumor_anywhere_in_a_slice_of_any_size_is_seen_in_both_panels(
    shape: tuple[int, int], spacing_mm: tuple[float, float], data: st.DataObject
) -> None:
    mask = empty_mask((1, *shape))
    mask[0, data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))] = TUMOR_LABEL
    picture = render_preview(segmented(mask, (2.0, *spacing_mm)))
    assert [colored(panel(picture, number), TUMOR_LABEL).any() for number in PANELS] == [True, True]


def test_phantom_is_outlined_in_both_colors() -> None:
    phantom = make_phantom(3, (24, 128, 128), tumor=True)
    pixels = panel(render_preview(segmented(phantom.label, phantom.spacing_mm, phantom.hu)), 1)
    assert [colored(pixels, label).any() for label in LABELS] == [True, True]


# Geometry and grey values


@pytest.mark.parametrize("number", PANELS)
@pytest.mark.parametrize("voxels", [(10, 40), (24, 6), (15, 15)])
def test_square_on_the_patient_is_square_in_the_picture(voxels: tuple[int, int], number: int) -> None:
    rows, cols = voxels
    mask = empty_mask()
    mask[1, 40 : 40 + rows, 50 : 50 + cols] = ORGAN_LABEL
    picture = render_preview(segmented(mask, (3.0, 30 / rows, 30 / cols)))
    (top, bottom), (left, right) = (extent(colored(panel(picture, number), ORGAN_LABEL), axis) for axis in (0, 1))
    assert bottom - top == pytest.approx(right - left, abs=2)


def test_organ_is_larger_in_the_second_panel(picture: Image.Image) -> None:
    widths = [np.diff(extent(colored(panel(picture, number), ORGAN_LABEL), 1)) for number in PANELS]
    assert widths[1] > 1.2 * widths[0]


def test_patients_right_is_on_the_left() -> None:
    mask = empty_mask()
    mask[1, 45:55, 5:15] = ORGAN_LABEL
    _, right = extent(colored(panel(render_preview(segmented(mask)), 0), ORGAN_LABEL), 1)
    assert right < PANEL_SIDE / 2


def test_front_of_the_patient_is_at_the_top() -> None:
    mask = empty_mask()
    mask[1, 15:25, 55:65] = ORGAN_LABEL
    _, bottom = extent(colored(panel(render_preview(segmented(mask)), 0), ORGAN_LABEL), 0)
    assert bottom < PANEL_SIDE / 2


def width_of(axial_panels: int) -> int:
    """Of a picture with that many axial panels, and the other planes on the right."""
    return other_plane_corner(0, axial_panels)[0] + SIDE_PANEL + panel_corner(0)[0]


def test_picture_without_organ_has_one_axial_panel() -> None:
    assert render_preview(segmented(empty_mask())).width == width_of(1)


@pytest.mark.parametrize(("hu", "grey"), [(-1000, 0), (-160, 0), (40, 127), (240, 255), (3000, 255)])
def test_grey_is_that_of_the_abdominal_window(hu: int, grey: int) -> None:
    picture = render_preview(segmented(empty_mask(), voxels=np.full(SHAPE, hu)))
    assert panel(picture, 0)[PANEL_SIDE // 2, PANEL_SIDE // 2].tolist() == [grey] * 3


# Other planes


def other_plane(picture: Image.Image, number: int) -> Pixels:
    """The coronal (0) or sagittal (1) panel of a picture with an organ."""
    x, y = other_plane_corner(number, 2)
    return np.asarray(picture)[y : y + SIDE_PANEL, x : x + SIDE_PANEL]


def block(rows: slice, cols: slice, slices: slice, label: int = TUMOR_LABEL) -> Mask:
    """A block of one label in a scan of 40 slices of 100 x 120 pixels."""
    mask = np.zeros((40, 100, 120), dtype=np.uint8)
    mask[slices, rows, cols] = label
    return mask


@pytest.mark.parametrize("number", PANELS)
def test_other_planes_have_true_proportions(number: int) -> None:
    # A cube of 30 mm on voxels of 3, 1.5 and 1 mm.
    picture = render_preview(segmented(block(slice(40, 60), slice(50, 80), slice(15, 25)), (3.0, 1.5, 1.0)))
    (top, bottom), (left, right) = (extent(colored(other_plane(picture, number), TUMOR_LABEL), axis) for axis in (0, 1))
    assert bottom - top == pytest.approx(right - left, abs=2)


@pytest.mark.parametrize("number", PANELS)
def test_head_is_at_the_top_of_other_planes(number: int) -> None:
    picture = render_preview(segmented(block(slice(40, 60), slice(50, 80), slice(30, 38)), (3.0, 1.5, 1.0)))
    assert extent(colored(other_plane(picture, number), TUMOR_LABEL), 0)[1] < SIDE_PANEL / 2


@pytest.mark.parametrize(("number", "what"), [(0, "the patient's right"), (1, "the front")])
def test_other_planes_have_on_their_left(number: int, what: str) -> None:
    picture = render_preview(segmented(block(slice(10, 20), slice(5, 15), slice(15, 25)), (3.0, 1.5, 1.0)))
    assert extent(colored(other_plane(picture, number), TUMOR_LABEL), 1)[1] < SIDE_PANEL / 2


def test_a_lesion_outside_the_planes_has_an_outline_with_gaps() -> None:
    large, far = block(slice(40, 60), slice(50, 80), slice(15, 25)), block(slice(80, 90), slice(20, 50), slice(2, 7))
    alone, both = (
        colored(other_plane(render_preview(segmented(mask)), 0), TUMOR_LABEL) for mask in (large, large | far)
    )
    top, _ = extent(both & ~alone, 0)
    added = (both & ~alone)[top]
    assert 0 < np.count_nonzero(added) < 0.7 * np.ptp(np.flatnonzero(added))


@pytest.mark.parametrize("scattered", [True, False])
def test_slices_that_are_not_neighbors_have_no_other_planes(scattered: bool) -> None:
    found = segmented(organ_mask())
    found = replace(found, volume=replace(found.volume, scattered=scattered))
    assert (render_preview(found).width == width_of(2)) is not scattered


# Text


@pytest.mark.parametrize(("columns", "is_r"), [(slice(0, 60), True), (slice(PANEL_SIDE - 60, PANEL_SIDE), False)])
def test_patients_right_is_marked_r_and_left_l(columns: slice, is_r: bool) -> None:
    middle = slice(PANEL_SIDE // 2 - 30, PANEL_SIDE // 2 + 30)
    ink = panel(render_preview(segmented(empty_mask())), 0)[middle, columns, 0] > 128
    (top, bottom), (left, right) = extent(ink, 0), extent(ink, 1)
    # An R has ink in its upper right quarter, an L has none.
    assert ink[top : (top + bottom) // 2, (left + right) // 2 + 1 : right].any() == is_r


@pytest.mark.parametrize(
    ("field_mm", "bar_mm"), [(400.0, 50), (200.0, 50), (80.0, 20), (40.0, 10), (20.0, 5), (900.0, 50)]
)
def test_scale_bar_has_its_length_in_the_patient(field_mm: float, bar_mm: float) -> None:
    picture = render_preview(segmented(empty_mask((1, 100, 100)), (1.0, field_mm / 100, field_mm / 100)))
    ink = panel(picture, 0)[:, :, 0] > 128
    assert max(longest_run(line) for line in ink) == pytest.approx(bar_mm * PANEL_SIDE / field_mm, abs=1)


def test_slice_too_small_for_a_scale_bar_has_none() -> None:
    picture = render_preview(segmented(empty_mask((1, 10, 10)), (1.0, 0.5, 0.5)))
    assert max(longest_run(line) for line in panel(picture, 0)[:, :, 0] > 128) < 30


LONG_TEXTS = {"words": "Research use only. " * 40, "one word": "x" * 900, "both": f"Not for {'x' * 400} or patients."}


@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
@pytest.mark.parametrize("mask", [organ_mask(), empty_mask()], ids=["two panels", "one panel"])
def test_long_intended_use_stays_off_the_borders(mask: Mask, text: str) -> None:
    ink = footer_ink(render_preview(segmented(mask, intended_use=text)))
    assert not ink[:, -10:].any()
    assert not ink[-4:].any()


@pytest.mark.parametrize("text", ["Research. ", "x"], ids=["words", "one word"])
def test_long_intended_use_is_shown_to_its_end(text: str) -> None:
    short, long = (render_preview(segmented(empty_mask(), intended_use=text * count)) for count in (5, 500))
    assert footer_ink(long).sum() == pytest.approx(100 * footer_ink(short).sum(), rel=0.02)


@pytest.mark.parametrize("text", ["", "   "])
def test_a_picture_without_intended_use_ends_below_the_legend(picture: Image.Image, text: str) -> None:
    assert render_preview(segmented(organ_mask(), intended_use=text)).height < picture.height


@pytest.mark.parametrize("name", ["pancreas_" * 60, "several\nlines\nof name"])
def test_name_of_any_length_leaves_the_status_readable(picture: Image.Image, name: str) -> None:
    header = (picture.width - 240, 0, picture.width, panel_corner(0)[1])
    assert render_preview(segmented(organ_mask(), name=name)).crop(header) == picture.crop(header)


# Beside what an expert drew


def compared(found: Mask, truth: Mask, source: str = "Where it comes from") -> Pixels:
    bundle = {"name": "mine", "intended_use": "Research only."}
    return np.asarray(render_comparison(replace(segmented(found), provenance={"bundle": bundle}), Truth(truth), source))


def of_truth(pixels: Pixels) -> npt.NDArray[np.bool_]:
    return np.asarray((pixels == TRUTH_COLOR).all(axis=-1))


def panels_only(picture: Pixels) -> Pixels:
    """A row of three panels, without title and legend."""
    top = panel_corner(0)[1]
    return picture[top : top + picture.shape[1] // 3 - 20]


def test_outlines_that_agree_are_both_visible_the_true_one_outside() -> None:
    mask = organ_mask(tumor=False)
    pixels = panels_only(compared(mask, mask))
    found, true = colored(pixels, ORGAN_LABEL), of_truth(pixels)
    for axis in (0, 1):
        (outer, end), (inner, inner_end) = extent(true, axis), extent(found, axis)
        assert (inner - outer, end - inner_end) == (2, 2)


def test_an_organ_that_was_not_found_has_the_true_outline_alone() -> None:
    pixels = panels_only(compared(empty_mask(), organ_mask(tumor=False)))
    assert (of_truth(pixels).any(), colored(pixels, ORGAN_LABEL).any()) == (True, False)


def test_an_outline_that_nobody_drew_is_seen_alone() -> None:
    pixels = panels_only(compared(organ_mask(tumor=False), empty_mask()))
    assert (of_truth(pixels).any(), colored(pixels, ORGAN_LABEL).any()) == (False, True)


def test_slices_stand_in_rows_of_three() -> None:
    sizes = []
    for slices in (1, 3, 4, 7):
        mask = np.repeat(organ_mask(tumor=False)[1:2], slices, axis=0)
        height, width, _ = compared(mask, mask).shape
        sizes.append((round(height / 500), round(width / 450)))
    assert sizes == [(1, 1), (1, 3), (2, 3), (3, 3)]


def test_the_source_stands_below_however_long() -> None:
    short, long = (compared(empty_mask(), empty_mask(), "source " * count) for count in (1, 100))
    assert long.shape[0] > short.shape[0]


@pytest.mark.parametrize("pixel_mm", [10.0, 1000.0, 1e5])
def test_slices_of_many_metres_have_a_picture(pixel_mm: float) -> None:
    picture = render_preview(segmented(organ_mask(), (3.0, pixel_mm, pixel_mm)))
    assert picture.width == width_of(2)
