"""Probabilities in one byte each: whole numbers from 0 to 255, in units of 1/255."""

from typing import Any

import numpy as np
import numpy.typing as npt

UNIT = 1 / 255


def to_bytes(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Round probabilities to units of 1/255. 128 and above is 0.5 and above, exactly.

    Args:
        probabilities: From 0 to 1. Those that are bytes already are returned as they are.
    """
    if probabilities.dtype == np.uint8:
        return probabilities
    # 127.5 becomes 128, because rint rounds to even. Resampling may overshoot 0 and 1.
    units: npt.NDArray[np.float32] = np.rint(np.multiply(probabilities, 255, dtype=np.float32))
    return np.clip(units, 0, 255).astype(np.uint8)


def to_floats(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return probabilities from 0 to 1, whether they are bytes or floats. Floats are returned as they are."""
    if probabilities.dtype != np.uint8:
        return np.asarray(probabilities, dtype=np.float32)
    floats: npt.NDArray[np.float32] = np.multiply(probabilities, np.float32(UNIT), dtype=np.float32)
    return floats
