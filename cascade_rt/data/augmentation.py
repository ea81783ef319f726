"""Random augmentation of training slices, so that the networks do not overfit to a few scanners and bodies.

Nothing is mirrored, because pancreas and liver each lie on a fixed side.
"""

from dataclasses import dataclass
from math import cos, radians, sin
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, gaussian_filter

from cascade_rt.common.tensors import PADDING_HU
from cascade_rt.config import Augmentation

Scalar = TypeVar("Scalar", np.float32, np.uint8)
Window = tuple[slice, slice]
"""Rows and columns of a patch."""

UPTAKE_HU = 40.0
"""Uptake of contrast medium: full above this HU, none at or below 0 (fat, air), linear in between."""
BRIGHT_HU = 240.0
"""Fixed point of the contrast change, in HU. Soft tissue with contrast medium lies below."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Ranges of the random changes."""

    gain: float
    """HU are multiplied by a factor within 1 plus or minus this."""
    shift_hu: float
    """HU are shifted by up to plus or minus this."""
    noise_hu: float
    """Maximum standard deviation of the noise."""
    turn_deg: float = 0.0
    """Slices are rotated by up to plus or minus this."""
    zoom: float = 0.0
    """Slices are scaled by a factor within 1 plus or minus this."""
    uptake_hu: float = 0.0
    """Tissue that takes up contrast medium is shifted by up to plus or minus this."""
    contrast: float = 0.0
    """Contrast among soft tissues is changed by a gamma curve: HU to a power within 1 plus or minus this."""
    blur: float = 0.0
    """Maximum standard deviation of the blur in pixels. On average, every other slice is left sharp."""


REACH: dict[Augmentation, Reach | None] = {
    "none": None,
    "intensity": Reach(gain=0.1, shift_hu=20.0, noise_hu=15.0),
    "full": Reach(gain=0.1, shift_hu=20.0, noise_hu=15.0, turn_deg=10.0, zoom=0.1),
    "wide": Reach(
        gain=0.2, shift_hu=10.0, noise_hu=25.0, turn_deg=14.0, zoom=0.25, uptake_hu=40.0, contrast=0.35, blur=1.2
    ),
}
"""Ranges for each kind of augmentation."""


@dataclass(frozen=True, slots=True)
class Change:
    """The changes applied to one slice and its label. The defaults do nothing."""

    gain: float = 1.0
    shift_hu: float = 0.0
    noise_hu: float = 0.0
    """Standard deviation."""
    noise_seed: int = 0
    turn_deg: float = 0.0
    """Rotation from rows towards columns."""
    zoom: float = 1.0
    uptake_hu: float = 0.0
    contrast: float = 1.0
    """Exponent of the gamma curve."""
    blur: float = 0.0
    """Standard deviation in pixels."""


def draw_change(augmentation: Augmentation, random: np.random.Generator) -> Change:
    """Draw the changes of a slice. Without augmentation, no random numbers are drawn."""
    reach = REACH[augmentation]
    if reach is None:
        return Change()
    return Change(
        gain=1 + random.uniform(-reach.gain, reach.gain),
        shift_hu=random.uniform(-reach.shift_hu, reach.shift_hu),
        noise_hu=random.uniform(0, reach.noise_hu),
        noise_seed=int(random.integers(1 << 32)),
        turn_deg=random.uniform(-reach.turn_deg, reach.turn_deg),
        zoom=1 + random.uniform(-reach.zoom, reach.zoom),
        uptake_hu=random.uniform(-reach.uptake_hu, reach.uptake_hu),
        contrast=1 + random.uniform(-reach.contrast, reach.contrast),
        blur=max(0.0, random.uniform(-reach.blur, reach.blur)),
    )


def change_slice(
    image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8], change: Change, window: Window | None = None
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Apply changes to a patch of a slice and its label. Both are moved alike and keep their dtypes.

    Args:
        image: `[row, col]`, HU. Pixels moved in from outside are padding, and padding is left unchanged.
        label: `[row, col]`. Pixels moved in from outside are 0.
        change: The changes. The patch is rotated and scaled about its middle.
        window: The patch inside the slice, or None for the whole slice.

    Returns:
        Image and label of the size of the patch.
    """
    if window is None:
        window = (slice(0, image.shape[0]), slice(0, image.shape[1]))
    if change == Change():
        return image[window], label[window]
    hu = image.astype(np.float32)
    if (change.turn_deg, change.zoom) == (0, 1):
        hu, label = hu[window], label[window]
    else:
        hu, label = _move(hu, change, window, 1, PADDING_HU), _move(label, change, window, 0, 0)
    hu = np.where(hu == PADDING_HU, hu, _change_hu(hu, change))
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(hu), limits.min, limits.max).astype(np.int16), label


def _change_hu(hu: npt.NDArray[np.float32], change: Change) -> npt.NDArray[np.float32]:
    if change.contrast != 1:
        hu = np.where(hu > 0, BRIGHT_HU * (np.maximum(hu, 0) / BRIGHT_HU) ** np.float32(change.contrast), hu)
    uptake = np.clip(hu / UPTAKE_HU, 0, 1) * change.uptake_hu if change.uptake_hu else 0
    noise = np.random.default_rng(change.noise_seed).standard_normal(hu.shape, dtype=np.float32)
    changed = (hu + uptake) * change.gain + change.shift_hu
    if change.blur:
        changed = gaussian_filter(changed, change.blur)
    noisy: npt.NDArray[np.float32] = changed + noise * change.noise_hu
    return noisy


def _move(
    array: npt.NDArray[Scalar], change: Change, window: Window, order: int, outside: float
) -> npt.NDArray[Scalar]:
    """Rotate and scale a patch of `[row, col]` about its middle, with spline interpolation of the given order."""
    angle = radians(change.turn_deg)
    # Maps an output pixel to its position in the input.
    matrix = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]]) / change.zoom
    shape = np.array([side.stop - side.start for side in window])
    middle = (shape - 1) / 2
    first = np.array([side.start for side in window])
    moved: npt.NDArray[Scalar] = affine_transform(
        array, matrix, first + middle - matrix @ middle, output_shape=tuple(shape), order=order, cval=outside
    )
    return moved
