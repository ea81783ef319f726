"""Whether the numbers of a scan are those of a CT of a body in Hounsfield units, and its geometry that of a scanner.

All of it is judged on the whole scan: the range on every voxel, shares on a regular sample of them.
"""

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputWarning
from cascade_rt.grids import CanonicalGrid
from cascade_rt.nifti.gate import Refusal

_SAMPLE = 1 << 20
_BODY_HU = -500
_LEAST_BODY = 0.01
_LOWEST_NOT_HU = -10
_HIGHEST_8_BIT = 255
_HIGHEST_NORMALISED = 1.5
_AIR_BELOW_HU = -700
_SOFT_TISSUE_HU = (-150, 100)
_LEAST_SOFT_TISSUE = 0.1
_CT_OFFSET = 1024
_THICK_MM = 10.0
_PLAUSIBLE_PIXEL_MM = (0.2, 10.0)
_SMALL_PIXELS = 32


def check_content(voxels: npt.NDArray[np.int16], *, assume_hu: bool) -> tuple[InputWarning, ...]:
    """Judge the voxels `[z, row, col]` of a scan, HU; returns what is doubtful.

    Args:
        voxels: All of them.
        assume_hu: The user vouches for them; nothing is judged.

    Raises:
        Refusal: There is no body in the scan, or its numbers are not Hounsfield units.
    """
    if assume_hu:
        return ()
    sample = _sample(voxels)
    lowest, highest = int(voxels.min()), int(voxels.max())
    if lowest == highest or np.count_nonzero(sample > _BODY_HU) < _LEAST_BODY * sample.size:
        what = f"every voxel is {lowest}" if lowest == highest else "almost all voxels are air"
        raise Refusal("E_NO_BODY", f"there is no body in the scan, {what}; export the right series")
    if (lowest >= 0 and highest <= _HIGHEST_8_BIT) or highest <= _HIGHEST_NORMALISED:
        sentence = f"its values, {lowest} to {highest}, are not Hounsfield units (already windowed or normalised?)"
        raise Refusal("E_NOT_HU", f"{sentence}; export the original CT, or insist with --assume-hu")
    if lowest >= _LOWEST_NOT_HU:
        return (InputWarning("W_NOT_HU", f"there is no air, the lowest value is {lowest}{_offset_hint(sample)}"),)
    soft_tissue = _share(sample, *_SOFT_TISSUE_HU)
    if lowest >= _AIR_BELOW_HU and soft_tissue < _LEAST_SOFT_TISSUE:
        sentence = f"it has no air, and only {100 * soft_tissue:.0f} % of it is soft tissue; is it a CT?"
        return (InputWarning("W_NOT_CT", sentence),)
    return ()


def geometry_warnings(grid: CanonicalGrid) -> tuple[InputWarning, ...]:
    """Return what is doubtful about the geometry of a scan, which is segmented all the same."""
    warnings = []
    z_mm, *pixel_mm = grid.spacing_mm
    if z_mm > _THICK_MM:
        sentence = f"its slices are {z_mm:.3g} mm apart; small tumours lie between them"
        warnings.append(InputWarning("W_THICK", sentence))
    low, high = _PLAUSIBLE_PIXEL_MM
    if not (low <= min(pixel_mm) and max(pixel_mm) <= high):
        sentence = f"its pixels measure {pixel_mm[0]:.3g} x {pixel_mm[1]:.3g} mm; is the unit right, and is it axial?"
        warnings.append(InputWarning("W_SPACING", sentence))
    _, rows, cols = grid.shape
    if min(rows, cols) < _SMALL_PIXELS:
        warnings.append(InputWarning("W_TOO_SMALL", f"its slices have {rows} x {cols} pixels; is it an axial CT?"))
    return tuple(warnings)


def _sample(voxels: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Every voxel of a small scan, and about a million, evenly spread, of a large one."""
    step = max(1, round((voxels.size / _SAMPLE) ** (1 / 3)))
    return voxels[::step, ::step, ::step]


def _share(sample: npt.NDArray[np.int16], low: int, high: int) -> float:
    return float(np.count_nonzero((sample >= low) & (sample <= high))) / sample.size


def _offset_hint(sample: npt.NDArray[np.int16]) -> str:
    """A remedy where soft tissue lies 1024 too high, as in files that store HU + 1024."""
    low, high = (bound + _CT_OFFSET for bound in _SOFT_TISSUE_HU)
    if _share(sample, low, high) < _LEAST_SOFT_TISSUE:
        return "; are these Hounsfield units?"
    return f"; they look like HU + {_CT_OFFSET}, try --hu-offset -{_CT_OFFSET}"
