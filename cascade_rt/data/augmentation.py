"""Slices changed at random in training, so that the networks do not learn a few scanners and bodies by heart.

Nothing is mirrored: pancreas and liver have their sides.
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
"""What contrast medium changes: all of it above this, nothing at or below 0 (fat, air), evenly in between."""
BRIGHT_HU = 240.0
"""HU that a change of contrast leaves where they are; soft tissue with contrast medium lies below."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far changes go."""

    gain: float
    """HU are multiplied by 1 plus or minus up to this."""
    shift_hu: float
    """HU are shifted up or down by up to this."""
    noise_hu: float
    """Largest standard deviation of the noise."""
    turn_deg: float = 0.0
    """Slices are turned either way by up to this."""
    zoom: float = 0.0
    """Slices are enlarged by 1 plus or minus up to this."""
    uptake_hu: float = 0.0
    """What takes up contrast medium is shifted up or down by up to this."""
    contrast: float = 0.0
    """Differences among soft tissues are bent, HU to the power of 1 plus or minus up to this."""
    blur: float = 0.0
    """Largest standard deviation of a blur, in pixels; every other slice is left sharp."""


REACH: dict[Augmentation, Reach | None] = {
    "none": None,
    "intensity": Reach(gain=0.1, shift_hu=20.0, noise_hu=15.0),
    "full": Reach(gain=0.1, shift_hu=20.0, noise_hu=15.0, turn_deg=10.0, zoom=0.1),
    "wide": Reach(
        gain=0.2, shift_hu=10.0, noise_hu=25.0, turn_deg=14.0, zoom=0.25, uptake_hu=40.0, contrast=0.35, blur=1.2
    ),
}
"""Of each kind of augmentation."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to one slice and its label. The defaults do nothing."""

    gain: float = 1.0
    shift_hu: float = 0.0
    noise_hu: float = 0.0
    """Standard deviation."""
    noise_seed: int = 0
    turn_deg: float = 0.0
    """From rows towards columns."""
    zoom: float = 1.0
    uptake_hu: float = 0.0
    contrast: float = 1.0
    """Power."""
    blur: float = 0.0
    """Standard deviation in pixels."""


def draw_change(augmentation: Augmentation, random: np.random.Generator) -> Change:
    """Draw what is done to a slice; without augmentation nothing is drawn."""
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
    """Change a patch of a slice and its label; both are moved alike, and keep their types.

    Args:
        image: `[row, col]`, HU. What comes in from outside it is padding, and padding stays what it is.
        label: `[row, col]`. What comes in from outside it is 0.
        change: What to do. The patch is turned and enlarged about its own middle.
        window: The patch, inside the slice; None: all of it.

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
    """Turn and enlarge a patch of `[row, col]` about its middle, with interpolation of that order."""
    angle = radians(change.turn_deg)
    # From a pixel of the result to the place in the input that it shows.
    matrix = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]]) / change.zoom
    shape = np.array([side.stop - side.start for side in window])
    middle = (shape - 1) / 2
    first = np.array([side.start for side in window])
    moved: npt.NDArray[Scalar] = affine_transform(
        array, matrix, first + middle - matrix @ middle, output_shape=tuple(shape), order=order, cval=outside
    )
    return moved
