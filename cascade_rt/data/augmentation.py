"""Slices changed a little at random in training, so that the networks do not learn a few scanners and bodies by heart.

Nothing is mirrored: pancreas and liver have their sides.
"""

from dataclasses import dataclass
from math import cos, radians, sin
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform

from cascade_rt.config import Augmentation
from cascade_rt.tensors import PADDING_HU

Scalar = TypeVar("Scalar", np.float32, np.uint8)

LARGEST_GAIN = 0.1
"""HU are multiplied by 1 plus or minus up to this."""
LARGEST_SHIFT_HU = 20.0
"""HU are shifted up or down by up to this."""
LARGEST_NOISE_HU = 15.0
"""Largest standard deviation of the noise."""
LARGEST_TURN_DEG = 10.0
"""Slices are turned either way by up to this."""
LARGEST_ZOOM = 0.1
"""Slices are enlarged by 1 plus or minus up to this."""


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


def draw_change(augmentation: Augmentation, random: np.random.Generator) -> Change:
    """Draw what is done to a slice; without augmentation nothing is drawn."""
    if augmentation == "none":
        return Change()
    intensity = {
        "gain": 1 + random.uniform(-LARGEST_GAIN, LARGEST_GAIN),
        "shift_hu": random.uniform(-LARGEST_SHIFT_HU, LARGEST_SHIFT_HU),
        "noise_hu": random.uniform(0, LARGEST_NOISE_HU),
    }
    noise_seed = int(random.integers(1 << 32))
    if augmentation == "intensity":
        return Change(**intensity, noise_seed=noise_seed)
    turn_deg = random.uniform(-LARGEST_TURN_DEG, LARGEST_TURN_DEG)
    zoom = 1 + random.uniform(-LARGEST_ZOOM, LARGEST_ZOOM)
    return Change(**intensity, noise_seed=noise_seed, turn_deg=turn_deg, zoom=zoom)


def zoom_range(augmentation: Augmentation) -> tuple[float, float]:
    """Return the least and the largest factor by which slices are enlarged; 1 and 1 where they are not."""
    return (1 - LARGEST_ZOOM, 1 + LARGEST_ZOOM) if augmentation == "full" else (1.0, 1.0)


def change_slice(
    image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8], change: Change
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Change a slice and its label; both are moved alike, and keep their shapes and types.

    Args:
        image: `[row, col]`, HU. What comes in from outside it is padding, and padding stays what it is.
        label: `[row, col]`. What comes in from outside it is 0.
        change: What to do.
    """
    if change == Change():
        return image, label
    hu = image.astype(np.float32)
    noise = np.random.default_rng(change.noise_seed).standard_normal(image.shape, dtype=np.float32)
    changed = hu * change.gain + change.shift_hu + noise * change.noise_hu
    hu = np.where(hu == PADDING_HU, hu, changed)
    if (change.turn_deg, change.zoom) != (0, 1):
        hu, label = _move(hu, change, 1, PADDING_HU), _move(label, change, 0, 0)
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(hu), limits.min, limits.max).astype(np.int16), label


def _move(array: npt.NDArray[Scalar], change: Change, order: int, outside: float) -> npt.NDArray[Scalar]:
    """Turn and enlarge `[row, col]` about its middle, with interpolation of that order."""
    angle = radians(change.turn_deg)
    # From a pixel of the result to the place in the input that it shows.
    matrix = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]]) / change.zoom
    middle = (np.array(array.shape) - 1) / 2
    moved: npt.NDArray[Scalar] = affine_transform(array, matrix, middle - matrix @ middle, order=order, cval=outside)
    return moved
