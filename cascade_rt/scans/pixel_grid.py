"""Pixels of the size that the networks were trained on: which scans are resampled to them in plane, and how.

A network knows organs by their size in pixels. Where a bundle says which pixels it was trained on, a scan with others
is brought to the middle of those before stage 1, and its probabilities are brought back before they become labels.
Slices are never resampled along z: the networks see one at a time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cascade_rt.config import Target
from cascade_rt.errors import InputError, InputWarning
from cascade_rt.models.crop import Box

Array = npt.NDArray[Any]
Range = tuple[float, float]
"""Shortest and longest side in mm."""

TOLERANCE = 0.02
"""By what share pixels may be other than square, or outside the range, and are still taken as they are: headers round,
and so do whole numbers of pixels."""
LARGEST_ANGLE_DEG = 20.0
"""How far slices may lean from axial."""
LARGEST_AREA = 2.0
"""How many times the area of a pixel that it is resampled to a coarser one may have, where tumors are looked for
(docs/decisions/0020)."""
LONGEST_SIDE = 4.0
"""How many times the side of a pixel that it is resampled to that of a coarser one may be, where the pancreas is."""
_LOBES = 3


@dataclass(frozen=True, slots=True)
class PixelGrid:
    """The pixels of a slice."""

    shape: tuple[int, int]
    """Rows and columns."""
    pixel_mm: tuple[float, float]
    """Distance in mm between neighbours along row and col."""


def working_grid(own: PixelGrid, trained_mm: tuple[float, float] | None) -> PixelGrid | None:
    """Return the grid to which slices are resampled, or None where they are taken as they are.

    Its pixels are square, and lie in the middle of the range: its ends are the rarest pixels in training, on which
    networks are at their worst. It covers the same field; as that takes whole pixels, their sides are not quite those
    meant.

    Args:
        own: The scan's own grid.
        trained_mm: The shortest and the longest side that the networks were trained on; None: not known.
    """
    if trained_mm is None:
        return None
    finer, coarser = sorted(own.pixel_mm)
    if coarser <= finer * (1 + TOLERANCE) and in_range(own.pixel_mm, trained_mm):
        return None
    side = middle_mm(trained_mm)
    lengths = [count * step for count, step in zip(own.shape, own.pixel_mm, strict=True)]
    rows, cols = (max(1, round(length / side)) for length in lengths)
    return PixelGrid((rows, cols), (lengths[0] / rows, lengths[1] / cols))


def middle_mm(trained_mm: tuple[float, float]) -> float:
    """The side of the pixels to which slices are resampled: as many times the shortest as the longest is of it."""
    return math.sqrt(trained_mm[0] * trained_mm[1])


def in_range(pixel_mm: tuple[float, float], trained_mm: tuple[float, float]) -> bool:
    """Whether both sides of pixels lie within what was trained on, but for the tolerance."""
    shortest, longest = trained_mm
    return shortest <= min(pixel_mm) * (1 + TOLERANCE) and max(pixel_mm) <= longest * (1 + TOLERANCE)


def check_pixels(name: str, affine: Array, own: PixelGrid, trained_mm: Range | None, target: Target) -> None:
    """Refuse a scan whose slices cannot be made to look like those trained on.

    Args:
        name: What the message calls the scan.
        affine: 4x4, from the canonical index (z, row, col) to world mm (RAS+).
        own: The scan's own grid.
        trained_mm: As of `working_grid`; None: nothing is refused.
        target: What stage 2 looks for. Coarse pixels lose tumors long before they lose the pancreas.

    Raises:
        InputError: Its slices lean too far from axial (`E_NOT_AXIAL`), or its pixels are too coarse on one side, as in
            a coronal reformat, or on both (`E_COARSE`).
    """
    if trained_mm is None:
        return
    angle = degrees_from_axial(affine)
    if angle > LARGEST_ANGLE_DEG:
        raise InputError(
            f"{name}: its slices lean {angle:.0f} degrees from axial, and the networks were trained on axial ones; "
            "export the axial series",
            code="E_NOT_AXIAL",
        )
    if working_grid(own, trained_mm) is not None and _is_too_coarse(own.pixel_mm, middle_mm(trained_mm), target):
        raise InputError(
            f"{name}: its pixels measure {_shown(own.pixel_mm)} mm in axial slices, too coarse for networks trained on "
            f"{_shown_range(trained_mm)} mm; is this a coronal or sagittal reformat? Export the axial series",
            code="E_COARSE",
        )


def _is_too_coarse(pixel_mm: tuple[float, float], side_mm: float, target: Target) -> bool:
    """Whether too many pixels of a side are interpolated from one; a finer side than that counts as that."""
    row, col = (max(1.0, length / side_mm) for length in pixel_mm)
    return row * col > LARGEST_AREA if target == "tumor" else max(row, col) > LONGEST_SIDE


def degrees_from_axial(affine: Array) -> float:
    """How far the plane of the slices leans from the axial one.

    Args:
        affine: 4x4, from the canonical index (z, row, col) to world mm (RAS+).
    """
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    return math.degrees(math.acos(min(1.0, float(abs(normal[2]) / np.linalg.norm(normal)))))


def resampled_warning(own_mm: tuple[float, float], working: PixelGrid, trained_mm: tuple[float, float]) -> InputWarning:
    """Say that a scan was resampled, from pixels of which size, to what and why."""
    return InputWarning(
        "W_RESAMPLED",
        f"its pixels measure {_shown(own_mm)} mm and the networks were trained on {_shown_range(trained_mm)} mm; "
        f"slices were resampled to {_shown(working.pixel_mm)} mm, and what was found in them back",
    )


class Pixels(Protocol):
    """Where the networks see slices, and the way there and back."""

    shape: tuple[int, int]
    """Rows and columns that the networks see, before padding."""
    resampled: bool
    """Whether these are not the scan's own."""

    def read(self, image: Array, box: Box) -> Array:
        """Cut a box out of a slice `[row, col]` of the scan; the box is in what the networks see."""
        ...

    def place(self, prob: Array, box: Box) -> tuple[Box, Array]:
        """Bring what a network found back to the scan's own pixels.

        Args:
            prob: `[row, col]` of the box; what lies beyond the slice is left away. Bool only where `resampled` is off.
            box: Where it lies in what the networks see.

        Returns:
            The box in the scan's own pixels, and what was found in it.
        """
        ...

    def own_box(self, box: Box) -> Box:
        """The scan's own pixels that a box touches."""
        ...

    def seen_box(self, box: Box) -> Box:
        """Of what the networks see, the pixels that a box of the scan's own touches."""
        ...


class OwnPixels:
    """The scan's own: nothing is resampled (see `Pixels`)."""

    resampled = False

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def read(self, image: Array, box: Box) -> Array:
        """A view (see `Pixels`)."""
        return image[box.slices]

    def place(self, prob: Array, box: Box) -> tuple[Box, Array]:
        """The same (see `Pixels`)."""
        return box, prob

    def own_box(self, box: Box) -> Box:
        """The same (see `Pixels`)."""
        return box

    def seen_box(self, box: Box) -> Box:
        """The same (see `Pixels`)."""
        return box


class ResampledPixels:
    """Another number of pixels over the same field (see `Pixels`).

    Each axis on its own. Where there are fewer pixels than before, they are means over areas. Where there are more,
    slices are interpolated sharply, for networks take a blurred tissue for another one; probabilities linearly, so that
    they stay between those they come from.
    """

    resampled = True

    def __init__(self, own: tuple[int, int], seen: tuple[int, int], window_hu: tuple[float, float]) -> None:
        """Prepare the way there and back.

        Args:
            own: Rows and columns of the scan.
            seen: Those that the networks see.
            window_hu: What the networks see of HU.
        """
        self.shape = seen
        self._own = own
        # Sharp interpolation overshoots by a share of each edge; those of air and bone would reach into the window.
        low, high = window_hu
        self._limits_hu = (low - (high - low) / 2, high + (high - low) / 2)
        self._there = [_weights(before, after, _lanczos) for before, after in zip(own, seen, strict=True)]
        self._back = [_weights(before, after, _hat) for before, after in zip(seen, own, strict=True)]

    def read(self, image: Array, box: Box) -> npt.NDArray[np.float32]:
        """Resample (see `Pixels`)."""
        (rows, cols), (to_rows, to_cols) = box.slices, self._there
        hu = image.astype(np.float32)
        np.clip(hu, *self._limits_hu, out=hu)
        return _product(to_rows[rows], hu, to_cols[cols])

    def place(self, prob: Array, box: Box) -> tuple[Box, npt.NDArray[np.float32]]:
        """Resample; outside the box there is nothing (see `Pixels`)."""
        height, width = box.inside(self.shape)
        own = self.own_box(box)
        rows, cols = own.slices
        to_rows = self._back[0][rows, box.row : box.row + height]
        to_cols = self._back[1][cols, box.col : box.col + width]
        return own, _product(to_rows, prob[:height, :width], to_cols)

    def own_box(self, box: Box) -> Box:
        """Sides are rounded outward, as far as the image goes (see `Pixels`)."""
        return _scaled(box, self.shape, self._own)

    def seen_box(self, box: Box) -> Box:
        """Sides are rounded outward, as far as the image goes (see `Pixels`)."""
        return _scaled(box, self._own, self.shape)


def pixels_of(own: tuple[int, int], working: PixelGrid | None, window_hu: tuple[float, float]) -> Pixels:
    """How the networks see slices of so many rows and columns: on the working grid, where there is one."""
    return OwnPixels(own) if working is None else ResampledPixels(own, working.shape, window_hu)


def _weights(before: int, after: int, kernel: Callable[[Array], Array]) -> Any:
    """A sparse matrix `[after, before]` that resamples a line of pixels; its rows add up to 1."""
    from scipy.sparse import csr_array

    centres = np.arange(before)
    if after >= before:
        places = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
        weights = kernel(places[:, None] - centres)
    else:
        edges = np.arange(after + 1) * before / after
        weights = np.maximum(0, np.minimum(edges[1:, None], centres + 1) - np.maximum(edges[:-1, None], centres))
    return csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def _hat(distance: Array) -> Array:
    """Weights of linear interpolation; distances in pixels."""
    weights: Array = np.maximum(0, 1 - np.abs(distance))
    return weights


def _lanczos(distance: Array) -> Array:
    """Weights of Lanczos's interpolation; distances in pixels, of which whole ones have none but 0."""
    weights = np.where(np.abs(distance) < _LOBES, np.sinc(distance) * np.sinc(distance / _LOBES), 0)
    return np.where(distance == np.rint(distance), distance == 0, weights)


def _product(to_rows: Any, image: Array, to_cols: Any) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = (to_cols @ (to_rows @ image).T).T
    return found


def _scaled(box: Box, before: tuple[int, int], after: tuple[int, int]) -> Box:
    """A box of one grid on another over the same field, rounded outward."""
    row, height = _scaled_side(box.row, box.height, before[0], after[0])
    col, width = _scaled_side(box.col, box.width, before[1], after[1])
    return Box(row, col, height, width)


def _scaled_side(start: int, length: int, before: int, after: int) -> tuple[int, int]:
    first, end = start * after // before, -(-min(start + length, before) * after // before)
    return first, end - first


def _shown(pixel_mm: tuple[float, float]) -> str:
    return f"{pixel_mm[0]:.3g} x {pixel_mm[1]:.3g}"


def _shown_range(trained_mm: tuple[float, float]) -> str:
    return f"{trained_mm[0]:.3g} to {trained_mm[1]:.3g}"
