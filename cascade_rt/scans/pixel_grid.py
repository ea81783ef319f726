"""Resample scans in plane to the pixel size that the networks were trained on.

A network recognizes organs by their size in pixels. If a bundle states the pixel sizes it was trained on, a scan with
other pixels is resampled to the middle of that range before stage 1, and the probabilities are resampled back before
they become labels. Scans are never resampled along z, because the networks see one slice at a time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cascade_rt.common.labels import Target
from cascade_rt.errors import InputError, InputWarning
from cascade_rt.models.crop import Box

Array = npt.NDArray[Any]
Range = tuple[float, float]
"""The shortest and the longest side in mm."""

TOLERANCE = 0.02
"""Relative deviation from square, or from the trained range, up to which pixels are not resampled. Headers are rounded,
and so are pixel counts."""
LARGEST_ANGLE_DEG = 20.0
"""How far slices may be tilted from axial."""
LARGEST_AREA = 2.0
"""Largest ratio of the pixel areas before and after resampling for the target tumor (docs/decisions/0020)."""
LONGEST_SIDE = 4.0
"""Largest ratio of the pixel sides before and after resampling for the target organ (the pancreas)."""
_LOBES = 3


@dataclass(frozen=True, slots=True)
class PixelGrid:
    """The pixel grid of a slice."""

    shape: tuple[int, int]
    """Rows and columns."""
    pixel_mm: tuple[float, float]
    """The distance in mm between neighbors along row and col."""


def working_grid(own: PixelGrid, trained_mm: tuple[float, float] | None) -> PixelGrid | None:
    """Return the grid to which slices are resampled, or None if they are used as they are.

    The pixels are square and in the middle of the trained range, because sizes at its ends are the rarest in training
    and networks perform worst on them. The grid covers the same field of view with a whole number of pixels, so the
    actual sides deviate slightly from the intended one.

    Args:
        own: The grid of the scan.
        trained_mm: The shortest and the longest side that the networks were trained on, or None if unknown.
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
    """Return the side in mm of the pixels to which slices are resampled: the geometric mean of the trained range."""
    return math.sqrt(trained_mm[0] * trained_mm[1])


def in_range(pixel_mm: tuple[float, float], trained_mm: tuple[float, float]) -> bool:
    """Return whether both sides of the pixels lie within the trained range, up to the tolerance."""
    shortest, longest = trained_mm
    return shortest <= min(pixel_mm) * (1 + TOLERANCE) and max(pixel_mm) <= longest * (1 + TOLERANCE)


def check_pixels(name: str, affine: Array, own: PixelGrid, trained_mm: Range | None, target: Target) -> None:
    """Refuse a scan whose slices cannot be resampled to look like the training data.

    Args:
        name: The name of the scan in the message.
        affine: 4x4, from the canonical index (z, row, col) to world mm (RAS+).
        own: The grid of the scan.
        trained_mm: See `working_grid`. If None, nothing is refused.
        target: What stage 2 segments. Coarse pixels lose tumors long before they lose the pancreas.

    Raises:
        InputError: The slices are tilted too far from axial (`E_NOT_AXIAL`), or the pixels are too coarse along one
            axis, as in a coronal reformat, or along both (`E_COARSE`).
    """
    if trained_mm is None:
        return
    angle = degrees_from_axial(affine)
    if angle > LARGEST_ANGLE_DEG:
        raise InputError(
            f"{name}: its slices are tilted {angle:.0f} degrees from axial, but the networks expect axial slices; "
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
    """Return whether too many pixels of side `side_mm` come from one pixel. A shorter side counts as `side_mm`."""
    row, col = (max(1.0, length / side_mm) for length in pixel_mm)
    return row * col > LARGEST_AREA if target == "tumor" else max(row, col) > LONGEST_SIDE


def degrees_from_axial(affine: Array) -> float:
    """Return the angle between the plane of the slices and the axial plane, in degrees.

    Args:
        affine: 4x4, from the canonical index (z, row, col) to world mm (RAS+).
    """
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    return math.degrees(math.acos(min(1.0, float(abs(normal[2]) / np.linalg.norm(normal)))))


def resampled_warning(own_mm: tuple[float, float], working: PixelGrid, trained_mm: tuple[float, float]) -> InputWarning:
    """Return the warning that a scan was resampled, with the pixel sizes before and after, and the reason."""
    return InputWarning(
        "W_RESAMPLED",
        f"its pixels measure {_shown(own_mm)} mm, but the networks were trained on {_shown_range(trained_mm)} mm; "
        f"slices were resampled to {_shown(working.pixel_mm)} mm, and the results back",
    )


class Pixels(Protocol):
    """The pixel grid on which the networks see slices, with the mapping to and from the grid of the scan."""

    shape: tuple[int, int]
    """Rows and columns that the networks see, before padding."""
    resampled: bool
    """Whether this grid differs from that of the scan."""

    def read(self, image: Array, box: Box) -> Array:
        """Crop a slice `[row, col]` of the scan to a box given in network pixels."""
        ...

    def place(self, prob: Array, box: Box) -> tuple[Box, Array]:
        """Map the output of a network back to the pixels of the scan.

        Args:
            prob: `[row, col]` of the box. Pixels beyond the slice are dropped. Bool only if `resampled` is false.
            box: The position of `prob` in network pixels.

        Returns:
            The box in pixels of the scan, and the output in it.
        """
        ...

    def own_box(self, box: Box) -> Box:
        """Return the pixels of the scan that a box in network pixels touches."""
        ...

    def seen_box(self, box: Box) -> Box:
        """Return the network pixels that a box in pixels of the scan touches."""
        ...


class OwnPixels:
    """The grid of the scan itself, without resampling (see `Pixels`)."""

    resampled = False

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def read(self, image: Array, box: Box) -> Array:
        """Return a view of the box (see `Pixels`)."""
        return image[box.slices]

    def place(self, prob: Array, box: Box) -> tuple[Box, Array]:
        """Return both unchanged (see `Pixels`)."""
        return box, prob

    def own_box(self, box: Box) -> Box:
        """Return the box unchanged (see `Pixels`)."""
        return box

    def seen_box(self, box: Box) -> Box:
        """Return the box unchanged (see `Pixels`)."""
        return box


class ResampledPixels:
    """A different number of pixels over the same field of view (see `Pixels`).

    Each axis is resampled separately. Downsampling averages over areas. Upsampling interpolates slices with a Lanczos
    kernel, because networks mistake blurred tissue for another kind, and probabilities linearly, so that they stay
    within the range of the values they come from.
    """

    resampled = True

    def __init__(self, own: tuple[int, int], seen: tuple[int, int], window_hu: tuple[float, float]) -> None:
        """Prepare the resampling in both directions.

        Args:
            own: Rows and columns of the scan.
            seen: Rows and columns that the networks see.
            window_hu: The HU window that the networks see.
        """
        self.shape = seen
        self._own = own
        # Lanczos overshoots by a fraction of each edge. Without clipping, air and bone would ring into the window.
        low, high = window_hu
        self._limits_hu = (low - (high - low) / 2, high + (high - low) / 2)
        self._there = [_weights(before, after, _lanczos) for before, after in zip(own, seen, strict=True)]
        self._back = [_weights(before, after, _hat) for before, after in zip(seen, own, strict=True)]

    def read(self, image: Array, box: Box) -> npt.NDArray[np.float32]:
        """Resample the slice in the box (see `Pixels`)."""
        (rows, cols), (to_rows, to_cols) = box.slices, self._there
        hu = image.astype(np.float32)
        np.clip(hu, *self._limits_hu, out=hu)
        return _product(to_rows[rows], hu, to_cols[cols])

    def place(self, prob: Array, box: Box) -> tuple[Box, npt.NDArray[np.float32]]:
        """Resample back, treating everything outside the box as 0 (see `Pixels`)."""
        height, width = box.inside(self.shape)
        own = self.own_box(box)
        rows, cols = own.slices
        to_rows = self._back[0][rows, box.row : box.row + height]
        to_cols = self._back[1][cols, box.col : box.col + width]
        return own, _product(to_rows, prob[:height, :width], to_cols)

    def own_box(self, box: Box) -> Box:
        """Map the box, rounding its sides outward as far as the image extends (see `Pixels`)."""
        return _scaled(box, self.shape, self._own)

    def seen_box(self, box: Box) -> Box:
        """Map the box, rounding its sides outward as far as the image extends (see `Pixels`)."""
        return _scaled(box, self._own, self.shape)


def pixels_of(own: tuple[int, int], working: PixelGrid | None, window_hu: tuple[float, float]) -> Pixels:
    """Return the `Pixels` for slices of shape `own`: resampled to the working grid, if there is one."""
    return OwnPixels(own) if working is None else ResampledPixels(own, working.shape, window_hu)


def _weights(before: int, after: int, kernel: Callable[[Array], Array]) -> Any:
    """Return a sparse matrix `[after, before]` that resamples a line of pixels. Its rows sum to 1."""
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
    """Return the weights of linear interpolation for distances in pixels."""
    weights: Array = np.maximum(0, 1 - np.abs(distance))
    return weights


def _lanczos(distance: Array) -> Array:
    """Return the weights of Lanczos interpolation for distances in pixels: exactly 0 at whole ones, except 1 at 0."""
    weights = np.where(np.abs(distance) < _LOBES, np.sinc(distance) * np.sinc(distance / _LOBES), 0)
    return np.where(distance == np.rint(distance), distance == 0, weights)


def _product(to_rows: Any, image: Array, to_cols: Any) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = (to_cols @ (to_rows @ image).T).T
    return found


def _scaled(box: Box, before: tuple[int, int], after: tuple[int, int]) -> Box:
    """Map a box to another grid over the same field of view, rounding outward."""
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
