"""Convert stored values to Hounsfield units or labels, block by block, counting invalid values on the way."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputWarning
from cascade_rt.scans.nifti.gate import RejectedFile

AIR_HU = -1024
_MOST_ENCLOSED = 0.01
"""Largest share of all voxels that may be holes: invalid, but enclosed by valid ones. Those outside may be more."""
_LEAST_FINITE = 0.01
_MOST_CLIPPED = 0.01
"""Largest fraction of voxels that may be above the range of the target type (metal), or below it but not padding."""
_FRACTION = 1e-3
"""Largest distance of a label from a whole number."""


class _Conversion:
    """Scales, rounds and casts voxels, using one block of scratch memory regardless of the volume size.

    Odd values are judged only in `check`, once it is known that the file is not simply damaged.
    """

    target: type[np.int16] | type[np.uint8]
    nothing: int
    """Value assigned to voxels that are not finite or are below the range of the target type."""

    def __init__(self, dtype: np.dtype[Any], scaling: tuple[float, float]) -> None:
        self._work = np.empty(0)
        self.rescale(dtype, scaling)
        self._voxels = 0
        self._not_finite = 0
        self._too_low = 0
        self._below = math.inf
        self._at_below = 0
        self._enclosed = 0
        self._too_high = 0
        self._fraction = 0.0
        self.lowest = math.inf
        self.highest = -math.inf

    def rescale(self, dtype: np.dtype[Any], scaling: tuple[float, float]) -> None:
        """Expect blocks of this type and of this slope and intercept from now on."""
        self._slope, self._intercept = scaling
        self._exact = dtype.kind in "iu" and self._slope == 1.0 and float(self._intercept).is_integer()
        self._work_type = np.dtype(np.float32 if dtype == np.float32 and scaling == (1.0, 0.0) else np.float64)
        if self._work.dtype != self._work_type:
            self._work = np.empty(0, dtype=self._work_type)
        self.direct = self._exact and self._intercept == 0 and dtype == self.target
        """Whether the stored bytes need no conversion, so that they can be read directly into the target array."""

    def convert(self, stored: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        """Fill `wanted` from a block of stored values of the same shape. Both may have any strides."""
        if self._exact:
            self._shift(stored, wanted)
        else:
            self._scale(stored, wanted)

    def observe(self, block: npt.NDArray[Any]) -> None:
        """Record the range of a block that needs no conversion."""
        self._voxels += block.size
        self._see_range(int(block.min()), int(block.max()))

    def _shift(self, stored: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        offset = int(self._intercept)
        self._voxels += stored.size
        lowest, highest = int(stored.min()) + offset, int(stored.max()) + offset
        limits = np.iinfo(self.target)
        if lowest < limits.min or highest > limits.max:
            stored = self._fit_stored(stored, offset)
            lowest = lowest if lowest >= limits.min else int(stored.min()) + offset
            highest = max(highest, int(stored.max()) + offset)
        self._see_range(lowest, highest)
        np.copyto(wanted, stored, casting="unsafe")
        if offset:
            # The cast and the addition may both wrap around, which cancels out because the true sums fit.
            wanted += np.array(offset % 65536).astype(self.target)

    def _fit_stored(self, stored: npt.NDArray[Any], offset: int) -> npt.NDArray[Any]:
        """Count out-of-range values, and replace them so that every sum with the offset fits the target type."""
        given, wanted = np.iinfo(stored.dtype), np.iinfo(self.target)
        low, high = wanted.min - offset, wanted.max - offset
        beyond = stored < low
        if beyond.any():
            self._see_low(beyond, stored[beyond].astype(np.float64) + offset)
            self._enclosed += _count_enclosed(beyond)
        self._too_high += int(np.count_nonzero(stored > high))
        low, high = (min(max(limit, given.min), given.max) for limit in (low, high))
        fitting: npt.NDArray[Any] = np.clip(stored, low, high)
        fitting[beyond] = min(max(self.nothing - offset, low), high)
        return fitting

    def _scale(self, stored: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        if self._work.size < stored.size:
            self._work = np.empty(stored.size, dtype=self._work_type)
        # In Fortran order, like the blocks of a file, so that both are contiguous.
        work = self._work[: stored.size].reshape(stored.T.shape).T
        np.copyto(work, stored, casting="unsafe")
        if (self._slope, self._intercept) != (1.0, 0.0):
            work *= self._slope
            work += self._intercept
        limits = np.iinfo(self.target)
        lowest, highest = float(work.min()), float(work.max())
        # Values up to half a unit beyond the limit round to it. The comparison is written so that NaN fails it too.
        if not (limits.min - 0.5 <= lowest and highest < math.inf):
            self._replace_what_is_nothing(work, limits.min - 0.5)
            lowest, highest = float(work.min()), float(work.max())
        self._voxels += stored.size
        self._see_range(lowest, highest)
        if self.target is np.uint8:
            # Before clipping, which would turn -0.4 into a whole number.
            self._fraction = max(self._fraction, float(np.abs(work - np.rint(work)).max()))
        if lowest < limits.min or highest > limits.max:
            self._too_high += int(np.count_nonzero(work > limits.max + 0.5))
            np.clip(work, limits.min, limits.max, out=work)
        np.rint(work, out=work)
        np.copyto(wanted, work, casting="unsafe")

    def _replace_what_is_nothing(self, work: npt.NDArray[np.floating[Any]], low: float) -> None:
        odd = ~np.isfinite(work)
        self._not_finite += int(np.count_nonzero(odd))
        beyond = (work < low) & ~odd
        if beyond.any():
            self._see_low(beyond, work[beyond])
            odd |= beyond
        self._enclosed += _count_enclosed(odd)
        work[odd] = self.nothing

    def _see_low(self, beyond: npt.NDArray[np.bool_], values: npt.NDArray[np.floating[Any]]) -> None:
        """Count the voxels that are too low, and how many of them hold the lowest value seen so far."""
        lowest = float(values.min())
        if lowest < self._below:
            self._below, self._at_below = lowest, 0
        if lowest == self._below:
            self._at_below += int(np.count_nonzero(values == lowest))
        self._too_low += int(np.count_nonzero(beyond))

    def _see_range(self, lowest: float, highest: float) -> None:
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)

    def _refusal(self, code: str, remedy: str) -> RejectedFile:
        limits = np.iinfo(self.target)
        found = f"{min(self.lowest, self._below):g} to {self.highest:g}"
        return RejectedFile(code, f"voxels must be within {limits.min} to {limits.max}, found {found}; {remedy}")


class HuConversion(_Conversion):
    """Converts to Hounsfield units, rounded.

    Voxels that are not finite become air, unless they are holes in the scan. So does padding: voxels far below air that
    all hold the same value.
    """

    target = np.int16
    nothing = AIR_HU

    @property
    def filled(self) -> bool:
        """Whether any invalid voxels were replaced with air."""
        return self._not_finite + self._too_low > 0

    @property
    def padded(self) -> bool:
        """Whether so many voxels are too low that they are padding, provided the others are Hounsfield units."""
        return self._too_low > _MOST_CLIPPED * self._voxels

    def check(self) -> tuple[InputWarning, ...]:
        """Judge the values seen so far, and return the warnings.

        Raises:
            RejectedFile: Too many voxels are not finite, or the values are not Hounsfield units.
        """
        odd = self._not_finite + self._too_low
        holes = self._enclosed > _MOST_ENCLOSED * self._voxels
        unfit = holes or self._voxels - odd < _LEAST_FINITE * self._voxels
        if unfit and self._not_finite > self._too_low:
            share = f"{100 * self._not_finite / self._voxels:.0f} % of the voxels are NaN or infinite"
            where = ", many of them inside the scan" if holes else ""
            raise RejectedFile("E_NONFINITE", f"{share}{where}; export it again")
        is_one_number = self._too_low - self._at_below <= _MOST_CLIPPED * self._voxels
        if self._too_high > _MOST_CLIPPED * self._voxels or (self.padded and (unfit or not is_one_number)):
            raise self._refusal("E_HU_RANGE", "export the scan in Hounsfield units")
        return self._warnings()

    def _warnings(self) -> tuple[InputWarning, ...]:
        warnings = []
        if self._not_finite:
            sentence = f"{self._not_finite} voxels are NaN or infinite; they are treated as air"
            warnings.append(InputWarning("W_NONFINITE", sentence))
        if self.padded:
            sentence = f"{self._too_low} voxels, down to {self._below:g}, are far below air; they are treated as air"
            warnings.append(InputWarning("W_PADDING", sentence))
        clipped = self._too_high + (0 if self.padded else self._too_low)
        if clipped:
            found = f"{min(self.lowest, self._below):g} to {self.highest:g}"
            sentence = f"its values, {found}, are not all Hounsfield units; {clipped} voxels are clipped (metal?)"
            warnings.append(InputWarning("W_CLIPPED", sentence))
        return tuple(warnings)


class LabelConversion(_Conversion):
    """Converts to labels, which are whole numbers."""

    target = np.uint8
    nothing = 0

    def check(self) -> tuple[InputWarning, ...]:
        """Judge the values seen so far, and return the warnings.

        Raises:
            RejectedFile: Voxels are not whole numbers from 0 to 255, or the slope is negative.
        """
        if self._slope < 0:
            sentence = f"its slope of {self._slope:g} inverts the labels"
            raise RejectedFile("E_LABELS", f"{sentence}; export it again without a negative slope")
        if self._not_finite:
            raise RejectedFile("E_NONFINITE", f"{self._not_finite} voxels are NaN or infinite; export it again")
        if self._too_low or self._too_high:
            raise self._refusal("E_LABELS", "is it a label file?")
        if self._fraction > _FRACTION:
            raise RejectedFile("E_LABELS", "labels must be integers; is it a probability map?")
        if self.lowest > 0:
            return (InputWarning("W_LABELS", f"no voxel is background; the lowest label is {self.lowest:g}"),)
        return ()


def _count_enclosed(odd: npt.NDArray[np.bool_]) -> int:
    """Count the invalid voxels `[i, j, k]` that have valid ones on both sides along i and also along j."""
    return int(np.count_nonzero(odd & ~outside(odd)))


def outside(odd: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which odd voxels `[i, j, ...]` have only odd ones between them and an edge of the image, along i or j."""
    found = np.zeros_like(odd)
    for axis in (0, 1):
        for way in (odd, np.flip(odd, axis)):
            reached = np.logical_and.accumulate(way, axis=axis)
            found |= reached if way is odd else np.flip(reached, axis)
    return found
