"""Stored numbers to Hounsfield units or labels, block by block, counting on the way what is odd about them."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputWarning
from cascade_rt.nifti.gate import Refusal

AIR_HU = -1024
_MOST_ENCLOSED = 0.01
"""The most voxels of no value that may lie among others, as holes; those outside the field of view may be more."""
_LEAST_FINITE = 0.01
_MOST_CLIPPED = 0.01
"""The most voxels that may be brighter than the type can say, as metal is."""
_FRACTION = 1e-3
"""How far the number of a label may be from a whole one."""


class _Conversion:
    """Scales, rounds and narrows voxels, with one block of scratch memory however many there are.

    What is odd about the numbers is judged in `check`, when it is known that the file is not merely damaged.
    """

    target: type[np.int16] | type[np.uint8]

    def __init__(self, dtype: np.dtype[Any], scaling: tuple[float, float]) -> None:
        self._slope, self._intercept = scaling
        self._exact = dtype.kind in "iu" and self._slope == 1.0 and self._intercept.is_integer()
        self._work_type = np.dtype(np.float32 if dtype == np.float32 and scaling == (1.0, 0.0) else np.float64)
        self._work = np.empty(0, dtype=self._work_type)
        self._voxels = 0
        self._not_finite = 0
        self._enclosed = 0
        self._clipped = 0
        self._fraction = 0.0
        self.lowest = math.inf
        self.highest = -math.inf
        self.direct = self._exact and self._intercept == 0 and dtype == self.target
        """Whether the stored bytes are those that are wanted, so that they can be read to their place."""

    def convert(self, stored: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        """Fill `wanted` from a block of stored numbers of the same shape; either may have any strides."""
        if self._exact:
            self._shift(stored, wanted)
        else:
            self._scale(stored, wanted)

    def observe(self, block: npt.NDArray[Any]) -> None:
        """Look at a block that needs no conversion."""
        self._voxels += block.size
        self._see_range(int(block.min()), int(block.max()))

    def _shift(self, stored: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        offset = int(self._intercept)
        self._voxels += stored.size
        self._see_range(int(stored.min()) + offset, int(stored.max()) + offset)
        stored = self._clip_stored(stored, offset)
        np.copyto(wanted, stored, casting="unsafe")
        if offset:
            # Both may wrap around, which cancels out, for the sums fit.
            wanted += np.array(offset % 65536).astype(self.target)

    def _clip_stored(self, stored: npt.NDArray[Any], offset: int) -> npt.NDArray[Any]:
        """The same where all sums fit into the type that is wanted; else with the nearest numbers whose sums do."""
        wanted, given = np.iinfo(self.target), np.iinfo(stored.dtype)
        low, high = wanted.min - offset, wanted.max - offset
        if given.min >= low and given.max <= high:
            return stored
        beyond = int(np.count_nonzero((stored < low) | (stored > high)))
        if not beyond:
            return stored
        self._clipped += beyond
        low, high = (min(max(limit, given.min), given.max) for limit in (low, high))
        clipped: npt.NDArray[Any] = np.clip(stored, low, high)
        return clipped

    def _scale(self, stored: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
        if self._work.size < stored.size:
            self._work = np.empty(stored.size, dtype=self._work_type)
        # In the axes' own order: contiguous where the block is.
        work = self._work[: stored.size].reshape(stored.T.shape).T
        np.copyto(work, stored, casting="unsafe")
        if (self._slope, self._intercept) != (1.0, 0.0):
            work *= self._slope
            work += self._intercept
        lowest, highest = float(work.min()), float(work.max())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            odd = ~np.isfinite(work)
            self._not_finite += int(np.count_nonzero(odd))
            self._enclosed += int(np.count_nonzero(_enclosed(odd)))
            work[odd] = AIR_HU
            lowest, highest = float(work.min()), float(work.max())
        self._voxels += stored.size
        self._see_range(lowest, highest)
        limits = np.iinfo(self.target)
        if lowest < limits.min or highest > limits.max:
            # Half a unit beyond is rounded to the limit, which is right.
            self._clipped += int(np.count_nonzero((work < limits.min - 0.5) | (work > limits.max + 0.5)))
            np.clip(work, limits.min, limits.max, out=work)
        if self.target is np.uint8:
            self._fraction = max(self._fraction, float(np.abs(work - np.rint(work)).max()))
        np.rint(work, out=work)
        np.copyto(wanted, work, casting="unsafe")

    def _see_range(self, lowest: float, highest: float) -> None:
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)

    def _check_range(self, code: str, remedy: str, *, most: float = 0) -> None:
        """Raise Refusal where more than a share `most` of the voxels did not fit."""
        if self._clipped > most * self._voxels:
            limits = np.iinfo(self.target)
            found = f"{self.lowest:g} to {self.highest:g}"
            raise Refusal(code, f"voxels must lie within {limits.min} to {limits.max}, found {found}; {remedy}")


class HuConversion(_Conversion):
    """To Hounsfield units, rounded. Voxels that are no finite number become air, where they are not holes in a scan."""

    target = np.int16

    def check(self) -> tuple[InputWarning, ...]:
        """Judge what was seen; returns what is doubtful.

        Raises:
            Refusal: Voxels are not finite, or no Hounsfield units.
        """
        share = 100 * self._not_finite / max(1, self._voxels)
        if self._voxels - self._not_finite < _LEAST_FINITE * self._voxels:
            raise Refusal("E_NONFINITE", f"{share:.0f} % of the voxels are not finite numbers; export it again")
        if self._enclosed > _MOST_ENCLOSED * self._voxels:
            sentence = f"{share:.0f} % of the voxels are not finite numbers, many of them in the midst of others"
            raise Refusal("E_NONFINITE", f"{sentence}; export it again")
        self._check_range("E_HU_RANGE", "export the scan in Hounsfield units", most=_MOST_CLIPPED)
        warnings = []
        if self._not_finite:
            sentence = f"{self._not_finite} voxels are not finite numbers; they are taken for air"
            warnings.append(InputWarning("W_NONFINITE", sentence))
        if self._clipped:
            found = f"{self.lowest:g} to {self.highest:g}"
            sentence = f"its values, {found}, are not all Hounsfield units; {self._clipped} voxels are clipped (metal?)"
            warnings.append(InputWarning("W_CLIPPED", sentence))
        return tuple(warnings)


class LabelConversion(_Conversion):
    """To labels, which are whole numbers."""

    target = np.uint8

    def check(self) -> tuple[InputWarning, ...]:
        """Judge what was seen.

        Raises:
            Refusal: Voxels are not whole numbers from 0 to 255.
        """
        if self._not_finite:
            raise Refusal("E_NONFINITE", f"{self._not_finite} voxels are not finite numbers; export it again")
        self._check_range("E_LABELS", "is it a label file?")
        if self._fraction > _FRACTION:
            raise Refusal("E_LABELS", "labels must be whole numbers; is it a probability map?")
        return ()


def _enclosed(odd: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which odd voxels `[i, j, k]` have others than odd ones on both sides along i, and along j as well."""
    outside = np.zeros_like(odd)
    for axis in (0, 1):
        for way in (odd, np.flip(odd, axis)):
            reached = np.logical_and.accumulate(way, axis=axis)
            outside |= reached if way is odd else np.flip(reached, axis)
    return odd & ~outside
