"""Convert the stored values of slices to Hounsfield units, with what their headers declare as padding as air."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputWarning
from cascade_rt.scans.dicom.pixels import Pixels, padding_of
from cascade_rt.scans.dicom.slices import Slice
from cascade_rt.scans.nifti.conversion import AIR_HU, HuConversion, outside

_TISSUE_HU = (-1000, 3071)
"""Padding below or above this range is no tissue, wherever it lies."""
_FEW = 0.01
"""Padding of a share of the voxels up to this is not worth a warning (as in NIfTI files)."""


class SliceConversion:
    """Converts slices to Hounsfield units, each with its own slope and intercept, and counts odd values."""

    def __init__(self, hu_offset: int = 0) -> None:
        self._offset = hu_offset
        self._hu = HuConversion(np.dtype(np.int16), (1.0, 0.0))
        self._padding = 0
        self._voxels = 0
        self._lowest_slope = np.inf

    def convert(self, entry: Slice, stored: Pixels, wanted: npt.NDArray[np.int16]) -> None:
        """Fill `wanted` `[col, row]` from the stored values `[row, col]` of a slice."""
        slope, intercept = entry.rescale
        self._lowest_slope = min(self._lowest_slope, slope)
        padded = self._padded(entry, stored)
        self._hu.rescale(stored.dtype, (slope, intercept + self._offset))
        self._voxels += stored.size
        if padded is not None:
            self._padding += int(np.count_nonzero(padded))
            # Air, in stored values, so that padding is neither counted as clipped nor widens the range of values.
            air = np.rint((AIR_HU - intercept - self._offset) / slope)
            info = np.iinfo(stored.dtype)
            stored = np.where(padded, np.clip(air, info.min, info.max).astype(stored.dtype), stored)
        self._hu.convert(stored.T[..., None], wanted[..., None])
        if padded is not None:
            wanted[padded.T] = AIR_HU

    def _padded(self, entry: Slice, stored: Pixels) -> npt.NDArray[np.bool_] | None:
        """Return which pixels are padding, or None if there are none."""
        values = padding_of(entry.header)
        if values is None:
            return None
        low, high = values
        padded: npt.NDArray[np.bool_] = stored == low if low == high else (stored >= low) & (stored <= high)
        if not padded.any():
            return None
        slope, intercept = entry.rescale
        hu = sorted(value * slope + intercept for value in values)
        if hu[1] < _TISSUE_HU[0] or hu[0] > _TISSUE_HU[1]:
            return padded
        # Some programs declare the value of water: inside the body it means water.
        return outside(padded)

    @property
    def seen(self) -> tuple[float, float]:
        """The lowest and the highest value before rounding, except for padding."""
        return self._hu.lowest, self._hu.highest

    @property
    def filled(self) -> bool:
        """Whether any voxels were replaced with air."""
        return self._hu.filled or self._padding > 0

    @property
    def padded(self) -> bool:
        """See `HuConversion`."""
        return self._hu.padded

    def check(self) -> tuple[InputWarning, ...]:
        """Judge the values seen so far, and return the warnings.

        Raises:
            RejectedFile: The values are not Hounsfield units.
        """
        warnings: list[Any] = []
        if self._lowest_slope < 0:
            sentence = f"its slope of {self._lowest_slope:g} inverts the stored values; is it right?"
            warnings.append(InputWarning("W_SLOPE", sentence))
        if self._padding > _FEW * self._voxels:
            sentence = f"{self._padding} voxels are padding, as its headers say; they are treated as air"
            warnings.append(InputWarning("W_PADDING", sentence))
        return (*warnings, *self._hu.check())
