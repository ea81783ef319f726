"""What else tells the two groups apart: they come from two hospitals, with their own scanners, contrast and reading.

Noise, brightness and size of a crop are scores themselves here, to show how far each of them goes alone; and all crops
can be made equally bright and equally noisy, after which neither can help.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.ndimage import uniform_filter

from benchmarks.tumor_crops.crops import HIGHEST_HU, LOWEST_HU, Crop, HuSlice

_SOFT_TISSUE_HU = (20.0, 180.0)
_MAD_TO_DEVIATION = 1.4826
_NOISIER_THAN = 0.9


def attenuation_hu(crop: Crop) -> float:
    """Median of the soft tissue, HU."""
    return float(np.median(_soft_tissue(crop, crop.hu)))


def noise_hu(crop: Crop) -> float:
    """Standard deviation, HU, of the noise in the soft tissue: of pixels less the mean of their eight neighbours.

    Of white noise that difference has sqrt(9 / 8) times the standard deviation. By the median absolute deviation, which
    does not see edges.
    """
    rest = _soft_tissue(crop, (crop.hu - uniform_filter(crop.hu, 3)) * np.float32(9 / 8))
    deviation = _MAD_TO_DEVIATION * np.median(np.abs(rest - np.median(rest)))
    return float(deviation / np.sqrt(9 / 8))


CONFOUNDERS: Mapping[str, Callable[[Crop], float]] = {
    "darker": lambda crop: -attenuation_hu(crop),
    "noisier": noise_hu,
    "larger": lambda crop: float(crop.area),
}
"""Scores that know nothing of tumors."""


def matched(crops: Sequence[Crop], random: np.random.Generator) -> list[Crop]:
    """Make all crops as bright as the median one, and nine in ten equally noisy.

    HU are shifted; white noise is added up to the 90th percentile, since noise cannot be taken away without taking
    texture along.
    """
    brightness = float(np.median([attenuation_hu(crop) for crop in crops]))
    noise = float(np.quantile([noise_hu(crop) for crop in crops], _NOISIER_THAN))
    return [_match(crop, brightness, noise, random) for crop in crops]


def _match(crop: Crop, brightness: float, noise: float, random: np.random.Generator) -> Crop:
    shifted = crop.hu + np.float32(brightness - attenuation_hu(crop))
    missing = np.sqrt(max(0.0, noise**2 - noise_hu(crop) ** 2))
    noisy = shifted + random.standard_normal(crop.hu.shape).astype(np.float32) * np.float32(missing)
    return replace(crop, hu=np.clip(noisy, LOWEST_HU, HIGHEST_HU))


def _soft_tissue(crop: Crop, values: HuSlice) -> HuSlice:
    low, high = _SOFT_TISSUE_HU
    soft = (crop.hu > low) & (crop.hu < high)
    chosen: HuSlice = values[soft] if soft.any() else values.ravel()
    return chosen
