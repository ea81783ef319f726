"""Which scans are resampled and to what, what resampling keeps, and which scans are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff

from cascade_rt.common.labels import Target
from cascade_rt.errors import InputError
from cascade_rt.models.crop import Box
from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.pixel_grid import (
    LARGEST_ANGLE_DEG,
    LARGEST_AREA,
    LONGEST_SIDE,
    TOLERANCE,
    OwnPixels,
    PixelGrid,
    ResampledPixels,
    check_pixels,
    degrees_from_axial,
    pixels_of,
    working_grid,
)

TRAINED_MM = (0.6, 1.0)
MIDDLE = 0.6**0.5
ALL_HU = (-1024.0, 3071.0)

sides_mm = st.floats(0.2, 4.0)
lengths = st.integers(1, 90)


def grid(row_mm: float, col_mm: float, shape: tuple[int, int] = (300, 400)) -> PixelGrid:
    return PixelGrid(shape, (row_mm, col_mm))


def resampled(own: tuple[int, int], seen: tuple[int, int]) -> ResampledPixels:
    return ResampledPixels(own, seen, ALL_HU)


def whole(pixels: OwnPixels | ResampledPixels) -> Box:
    return Box(0, 0, *pixels.shape)


def there_and_back(image: np.ndarray, seen: tuple[int, int]) -> np.ndarray:
    pixels = resampled(image.shape, seen)
    return pixels.place(pixels.read(image, whole(pixels)), whole(pixels))[1]


def waves(rows: int, cols: int) -> np.ndarray:
    """A field that changes slowly, from 0 to 1."""
    row, col = np.meshgrid(np.linspace(0, 2, rows), np.linspace(0, 3, cols), indexing="ij")
    return (np.sin(row + 1) * np.cos(col)).astype(np.float32) / 2 + 0.5


# The rule


@pytest.mark.parametrize("side", [0.6, 0.61, 0.8, 1.0])
def test_square_pixels_within_the_range_are_taken_as_they_are(side: float) -> None:
    assert working_grid(grid(side, side), TRAINED_MM) is None


@pytest.mark.parametrize("sides", [(0.3, 0.3), (2.0, 2.0), (0.8, 1.2), (0.8, 5.0)])
def test_without_a_range_any_pixels_are_taken_as_they_are(sides: tuple[float, float]) -> None:
    assert working_grid(grid(*sides), None) is None


@pytest.mark.parametrize("sides", [(0.591, 0.591), (1.015, 1.0), (0.8, 0.812)])
def test_rounding_in_headers_does_not_cause_resampling(sides: tuple[float, float]) -> None:
    assert working_grid(grid(*sides), TRAINED_MM) is None


@pytest.mark.parametrize(
    ("sides", "shape"),
    [
        ((0.3, 0.3), (150, 200)),
        ((1.5, 1.5), (750, 1000)),
        ((0.8, 1.2), (400, 800)),
        ((1.2, 0.8), (600, 533)),
        ((0.3, 0.6), (150, 400)),
    ],
)
def test_others_are_brought_to_the_middle_of_the_range(sides: tuple[float, float], shape: tuple[int, int]) -> None:
    found = working_grid(grid(*sides), (0.4, 0.9))
    assert found is not None
    assert found.shape == shape


@given(sides_mm, sides_mm, st.integers(60, 600), st.integers(60, 600))
def test_working_pixels_are_square_in_range_and_cover_the_same_field(
    row_mm: float, col_mm: float, rows: int, cols: int
) -> None:
    own = grid(row_mm, col_mm, (rows, cols))
    seen = working_grid(own, TRAINED_MM) or own
    # Half a pixel, of the fewest there can be.
    rounding = TOLERANCE + 0.5 / min(seen.shape)
    assert max(seen.pixel_mm) <= min(seen.pixel_mm) * (1 + 2 * rounding)
    assert TRAINED_MM[0] * (1 - rounding) <= min(seen.pixel_mm)
    assert max(seen.pixel_mm) <= TRAINED_MM[1] * (1 + rounding)
    assert np.multiply(seen.shape, seen.pixel_mm) == pytest.approx(np.multiply(own.shape, own.pixel_mm))


# Resampling


@given(lengths, lengths, lengths, lengths, st.integers(-1024, 3071))
def test_a_constant_image_stays_constant(rows: int, cols: int, seen_rows: int, seen_cols: int, hu: int) -> None:
    pixels = resampled((rows, cols), (seen_rows, seen_cols))
    found = pixels.read(np.full((rows, cols), hu, dtype=np.int16), whole(pixels))
    assert found.shape == (seen_rows, seen_cols)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, hu, rtol=1e-5)


@given(lengths, lengths, st.integers(0, 2**32 - 1))
def test_on_the_same_pixels_an_image_is_the_same(rows: int, cols: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(-1024, 3071, (rows, cols), dtype=np.int16)
    pixels = resampled((rows, cols), (rows, cols))
    np.testing.assert_array_equal(pixels.read(image, whole(pixels)), image)


@settings(max_examples=30)
@given(st.integers(40, 90), st.integers(40, 90), st.floats(0.5, 2.5), st.floats(0.5, 2.5))
def test_a_smooth_field_comes_back(rows: int, cols: int, by_rows: float, by_cols: float) -> None:
    field = waves(rows, cols)
    assert np.abs(there_and_back(field, (round(rows * by_rows), round(cols * by_cols))) - field).max() < 0.03


@given(lengths, lengths, lengths, lengths, st.integers(0, 2**32 - 1))
def test_probabilities_stay_probabilities(rows: int, cols: int, seen_rows: int, seen_cols: int, seed: int) -> None:
    prob = np.random.default_rng(seed).random((seen_rows, seen_cols), dtype=np.float32)
    pixels = resampled((rows, cols), (seen_rows, seen_cols))
    _, found = pixels.place(prob, whole(pixels))
    assert prob.min() - 1e-6 <= found.min()
    assert found.max() <= prob.max() + 1e-6


def test_fewer_pixels_are_means_over_areas() -> None:
    image = np.arange(24, dtype=np.int16).reshape(4, 6)
    pixels = resampled((4, 6), (2, 2))
    np.testing.assert_allclose(pixels.read(image, whole(pixels)), image.reshape(2, 2, 2, 3).mean(axis=(1, 3)))


def test_probabilities_on_more_pixels_lie_on_the_line_between_centres() -> None:
    pixels = resampled((1, 4), (1, 2))
    _, found = pixels.place(np.array([[0, 1]], np.float32), whole(pixels))
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]])


def test_upsampled_slices_are_sharper_than_linear_interpolation() -> None:
    edge = np.repeat(np.array([[0, 100]], np.int16), 8, axis=1)
    pixels = resampled((1, 16), (1, 48))
    found = pixels.read(edge, whole(pixels))[0]
    assert found[24] - found[23] > 100 / 3
    np.testing.assert_allclose(found[1::3], edge[0], atol=1e-4)


def test_air_does_not_ring_into_what_the_networks_see() -> None:
    edge = np.full((16, 16), -1000, dtype=np.int16)
    edge[4:12, 4:12] = -100
    pixels = ResampledPixels((16, 16), (22, 22), (-100, 240))
    assert pixels.read(edge, whole(pixels)).max() < -30


@settings(max_examples=30)
@given(st.data())
def test_a_box_is_a_part_of_the_whole(data: st.DataObject) -> None:
    rows, cols, seen_rows, seen_cols = (data.draw(st.integers(8, 60)) for _ in range(4))
    pixels = resampled((rows, cols), (seen_rows, seen_cols))
    row, col = data.draw(st.integers(0, seen_rows - 1)), data.draw(st.integers(0, seen_cols - 1))
    box = Box(row, col, data.draw(st.integers(1, seen_rows - row)), data.draw(st.integers(1, seen_cols - col)))
    image = np.random.default_rng(0).integers(-1024, 3071, (rows, cols), dtype=np.int16)
    np.testing.assert_allclose(pixels.read(image, box), pixels.read(image, whole(pixels))[box.slices], rtol=1e-5)

    inside = np.zeros((seen_rows, seen_cols), dtype=np.float32)
    inside[box.slices] = 1
    own, found = pixels.place(np.ones(box.size, dtype=np.float32), box)
    _, everywhere = pixels.place(inside, whole(pixels))
    np.testing.assert_allclose(found, everywhere[own.slices], atol=1e-6)
    everywhere[own.slices] = 0
    # Beyond the box lie, of what was found in it, only fringes that are no label.
    assert everywhere.max() <= 0.5 + 1e-6


def test_boxes_are_rounded_outward_and_end_at_the_image() -> None:
    pixels = resampled((100, 100), (64, 64))
    assert pixels.own_box(Box(1, 2, 10, 10)) == Box(1, 3, 17, 16)
    assert pixels.own_box(Box(32, 32, 64, 64)) == Box(50, 50, 50, 50)
    assert pixels.seen_box(Box(1, 99, 10, 1)) == Box(0, 63, 8, 1)


def test_padding_beyond_the_slice_is_cut_off() -> None:
    pixels = resampled((20, 20), (40, 40))
    padded = np.zeros((64, 64), dtype=np.float32)
    padded[:40, :40] = 1
    own, found = pixels.place(padded, Box(0, 0, 64, 64))
    assert own == Box(0, 0, 20, 20)
    np.testing.assert_allclose(found, 1, rtol=1e-6)


def test_without_a_working_grid_nothing_is_copied() -> None:
    pixels = pixels_of((20, 30), None, ALL_HU)
    image, box = np.zeros((20, 30), dtype=np.int16), Box(3, 4, 5, 6)
    assert np.shares_memory(pixels.read(image, box), image)
    assert pixels.place(image, box) == (box, image)
    assert not pixels.resampled


# Refusals


def affine(row_mm: float, col_mm: float, lean_deg: float = 0.0) -> np.ndarray:
    """From (z, row, col) to world, leaning about the axis from right to left."""
    lean = np.radians(lean_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(lean), -np.sin(lean)], [0, np.sin(lean), np.cos(lean)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.array([[0, 0, -col_mm], [0, -row_mm, 0], [2.5, 0, 0]])
    return matrix


def check(
    row_mm: float,
    col_mm: float,
    lean_deg: float = 0.0,
    trained: tuple[float, float] | None = TRAINED_MM,
    target: Target = "tumor",
) -> None:
    check_pixels("scan", affine(row_mm, col_mm, lean_deg), grid(row_mm, col_mm), trained, target)


@pytest.mark.parametrize("lean", [0.0, LARGEST_ANGLE_DEG - 1, -LARGEST_ANGLE_DEG + 1])
def test_slices_that_hardly_lean_are_axial(lean: float) -> None:
    assert degrees_from_axial(affine(0.8, 0.8, lean)) == pytest.approx(abs(lean))
    check(0.8, 0.8, lean)


@pytest.mark.parametrize("lean", [LARGEST_ANGLE_DEG + 1, -30.0, 44.0])
def test_oblique_slices_are_refused_with_their_angle(lean: float) -> None:
    with pytest.raises(InputError, match=f"scan: its slices are tilted {abs(lean):.0f} degrees from axial") as refused:
        check(0.8, 0.8, lean)
    assert refused.value.code == "E_NOT_AXIAL"


def test_a_tilted_gantry_is_judged_by_its_slices() -> None:
    matrix = affine(0.8, 0.8, 25.0)
    matrix[:3, 0] = (0, 0, 2.5)
    assert degrees_from_axial(matrix) == pytest.approx(25.0)


@pytest.mark.parametrize("sides", [(5.0, 0.8), (0.8, 5.0), (5.0, 5.0), (1.6, 1.6), (MIDDLE * LARGEST_AREA + 0.01, 0.6)])
def test_pixels_too_coarse_on_a_side_are_refused(sides: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"too coarse for networks trained on 0\.6 to 1 mm") as refused:
        check(*sides)
    assert refused.value.code == "E_COARSE"


@pytest.mark.parametrize("sides", [(0.1, 0.1), (0.8, 1.2), (1.08, 1.08), (MIDDLE * LARGEST_AREA - 0.01, 0.6)])
def test_pixels_that_can_be_resampled_are_not_refused(sides: tuple[float, float]) -> None:
    check(*sides)


@pytest.mark.parametrize("sides", [(3.0, 3.0), (0.8, MIDDLE * LONGEST_SIDE - 0.01)])
def test_a_pancreas_is_accepted_on_coarser_pixels_than_tumors(sides: tuple[float, float]) -> None:
    check(*sides, target="organ")
    with pytest.raises(InputError, match="too coarse"):
        check(*sides, target="tumor")


@pytest.mark.parametrize("sides", [(5.0, 5.0), (0.8, 5.0), (MIDDLE * LONGEST_SIDE + 0.01, 0.6)])
def test_a_coronal_reformat_is_too_coarse_for_a_pancreas(sides: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="too coarse") as refused:
        check(*sides, target="organ")
    assert refused.value.code == "E_COARSE"


def test_the_coarsest_pixels_trained_on_are_not_too_coarse() -> None:
    check(2.0, 2.0, trained=(0.4, 2.0))
    with pytest.raises(InputError):
        check(2.1, 2.1, trained=(0.4, 2.0))


@pytest.mark.parametrize("arguments", [(0.8, 0.8, 40.0), (5.0, 0.8, 0.0)])
def test_without_a_range_nothing_is_refused(arguments: tuple[float, float, float]) -> None:
    check(*arguments, trained=None)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LIP", "PIR"])
def test_axial_refers_to_the_patient_not_to_the_file(codes: str) -> None:
    matrix = np.linalg.inv(inv_ornt_aff(axcodes2ornt(tuple(codes)), (4, 5, 6)))
    assert degrees_from_axial(CanonicalGrid.from_source((4, 5, 6), matrix).affine) == pytest.approx(0, abs=1e-6)
