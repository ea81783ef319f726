"""Check that the values of a scan are those of a body CT in Hounsfield units, and that its geometry is plausible.

Values are judged by their shares in a regular sample of the voxels, never by the minimum or maximum: a single voxel may
have any value, and so may the padding added by scanners and programs. All padding lies below the dense range.
"""

import math

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputWarning
from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.nifti.conversion import AIR_HU
from cascade_rt.scans.nifti.gate import RejectedFile

_SAMPLE = 1 << 20
_DENSE_HU = -500
"""Voxels above this are dense: body or table."""
_LEAST_BODY = 0.01
_FEW = 1e-3
"""A share of the voxels up to this size is ignored, because it says nothing about the others."""
_BELOW_WATER_HU = -10
_HIGHEST_8_BIT = 255
_HIGHEST_NORMALISED = 1.5
_AIR_BELOW_HU = -700
_SOFT_TISSUE_HU = (-150, 100)
_LEAST_SOFT_TISSUE = 0.45
"""As a share of the dense voxels. Abdominal scans have 0.6 or more."""
_WATER_TO_ORGANS_HU = (-10, 100)
_LEAST_WATER_TO_ORGANS = 0.08
"""As a share of the dense voxels. Abdominal scans have 0.12 or more."""
_CT_OFFSET = 1024
_MOST_DENSE_BONE = 0.05
"""Largest share of the dense voxels in the soft-tissue range shifted up by 1024. Abdominal scans have 0.001."""
_THICK_MM = 10.0
_THIN_MM = 0.2
_PLAUSIBLE_PIXEL_MM = (0.2, 10.0)
_SMALL_PIXELS = 32
_MOST_DEGREES_TURNED = 20.0
"""Patients lie supine. For one rotated scan, Dice is 0.82 upright, 0.76 at this angle and 0.67 at 44 degrees."""

_Sample = npt.NDArray[np.int16]


def check_content(
    voxels: npt.NDArray[np.int16],
    seen: tuple[float, float],
    *,
    assume_hu: bool,
    filled: bool = False,
    padded: bool = False,
) -> tuple[InputWarning, ...]:
    """Judge the voxels of a scan, and return the warnings about them.

    Args:
        voxels: All voxels `[z, row, col]`, HU.
        seen: The lowest and the highest value before rounding.
        assume_hu: The user vouches for the values, so nothing is judged.
        filled: Some voxels had no value, or one that no scan has, and were replaced with air. Only the rest are judged.
        padded: Many of the replaced voxels were padding below any value of a scan, which is accepted only in a CT.

    Raises:
        RejectedFile: There is no body in the scan, or its values are not Hounsfield units.
    """
    if assume_hu:
        return ()
    sample = _sample(voxels)
    dense = sample[sample > _DENSE_HU]
    _check_body(sample, dense, seen)
    if filled:
        sample = sample[sample != AIR_HU]
    _check_scale(sample, dense, seen)
    doubt = _doubt_of_scale(sample, dense)
    if padded and doubt is None and not _is_share(sample < _AIR_BELOW_HU):
        # The background of an MR image may pass for soft tissue, but a CT of a body contains gas.
        doubt = InputWarning("W_NOT_CT", "they contain no air, is it a CT?")
    if padded and doubt is not None:
        sentence = f"many voxels are far below air, and the others are doubtful ({doubt.message})"
        raise RejectedFile(
            "E_HU_RANGE", f"{sentence}; export the scan in Hounsfield units, or override with `assume_hu=True`"
        )
    return () if doubt is None else (doubt,)


def _check_body(sample: _Sample, dense: _Sample, seen: tuple[float, float]) -> None:
    lowest, highest = seen
    if lowest == highest:
        raise RejectedFile(
            "E_NO_BODY", f"there is no body in the scan: every voxel is {lowest:g}; export the right series"
        )
    if dense.size < _LEAST_BODY * sample.size:
        raise RejectedFile(
            "E_NO_BODY", "there is no body in the scan: almost all voxels are air; export the right series"
        )


def _check_scale(sample: _Sample, dense: _Sample, seen: tuple[float, float]) -> None:
    """Refuse values that are windowed, normalized or attenuation coefficients."""
    normalised = not _is_share(dense > _HIGHEST_NORMALISED)
    bytes_alone = not _is_share((sample < 0) | (sample > _HIGHEST_8_BIT))
    if normalised or bytes_alone:
        values = f"its values, {seen[0]:.4g} to {seen[1]:.4g}"
        sentence = f"{values}, are not Hounsfield units (windowed, normalized or attenuation values?)"
        raise RejectedFile("E_NOT_HU", f"{sentence}; export the original CT, or override with `assume_hu=True`")


def _doubt_of_scale(sample: _Sample, dense: _Sample) -> InputWarning | None:
    low, high = (bound + _CT_OFFSET for bound in _SOFT_TISSUE_HU)
    if _share(dense, low, high) > _MOST_DENSE_BONE:
        sentence = f"soft tissue is missing from its usual range; its values look like HU + {_CT_OFFSET}"
        return InputWarning("W_NOT_HU", f"{sentence}, try `hu_offset=-{_CT_OFFSET}`")
    if not _is_share(dense < _BELOW_WATER_HU):
        return InputWarning("W_NOT_HU", "it contains nothing as light as fat; are these Hounsfield units?")
    if not _is_share(dense > _SOFT_TISSUE_HU[1]):
        return InputWarning("W_NOT_HU", "it contains nothing as dense as bone; are these Hounsfield units?")
    soft_tissue, organs = _share(dense, *_SOFT_TISSUE_HU), _share(dense, *_WATER_TO_ORGANS_HU)
    if soft_tissue >= _LEAST_SOFT_TISSUE and organs >= _LEAST_WATER_TO_ORGANS:
        return None
    found = f"only {100 * soft_tissue:.0f} % of the voxels denser than air are soft tissue"
    if soft_tissue >= _LEAST_SOFT_TISSUE:
        found = f"only {100 * organs:.0f} % of the voxels denser than air are as dense as water or organs"
    if _is_share(sample < _AIR_BELOW_HU):
        return InputWarning("W_NOT_HU", f"{found}; are these Hounsfield units?")
    return InputWarning("W_NOT_CT", f"it contains no air, and {found}; is it a CT?")


def geometry_warnings(grid: CanonicalGrid) -> tuple[InputWarning, ...]:
    """Return warnings about the geometry of a scan. The scan is segmented regardless."""
    warnings = []
    z_mm, *pixel_mm = grid.spacing_mm
    if z_mm > _THICK_MM:
        sentence = f"its slices are {z_mm:.3g} mm apart; small tumors may be missed between them"
        warnings.append(InputWarning("W_THICK", sentence))
    if z_mm < _THIN_MM:
        sentence = f"its slices are {z_mm:.3g} mm apart, closer than a scanner acquires; is the unit right?"
        warnings.append(InputWarning("W_SPACING", sentence))
    low, high = _PLAUSIBLE_PIXEL_MM
    if not (low <= min(pixel_mm) and max(pixel_mm) <= high):
        sentence = f"its pixels measure {pixel_mm[0]:.3g} x {pixel_mm[1]:.3g} mm; is the unit right, and is it axial?"
        warnings.append(InputWarning("W_SPACING", sentence))
    turned = _degrees_turned(grid)
    if turned > _MOST_DEGREES_TURNED:
        sentence = f"its slices are rotated by {turned:.0f} degrees in plane, unlike the training data"
        warnings.append(InputWarning("W_TURNED", f"{sentence}; resample it upright or check the mask carefully"))
    _, rows, cols = grid.shape
    if min(rows, cols) < _SMALL_PIXELS:
        warnings.append(InputWarning("W_TOO_SMALL", f"its slices have {rows} x {cols} pixels; is it an axial CT?"))
    return tuple(warnings)


def _degrees_turned(grid: CanonicalGrid) -> float:
    """Return the angle between the rows of the slices and the patient's left-right axis, in the axial plane."""
    to_left, to_posterior = grid.affine[:2, 2]
    return math.degrees(math.atan2(abs(to_posterior), abs(to_left)))


def _sample(voxels: npt.NDArray[np.int16]) -> _Sample:
    """Return all voxels of a small scan, or about a million evenly spaced voxels of a large one."""
    step = max(1, round((voxels.size / _SAMPLE) ** (1 / 3)))
    return voxels[::step, ::step, ::step]


def _share(sample: _Sample, low: int, high: int) -> float:
    return float(np.count_nonzero((sample >= low) & (sample <= high))) / sample.size


def _is_share(which: npt.NDArray[np.bool_]) -> bool:
    """Return whether the selected voxels are more than a negligible share (see `_FEW`)."""
    return bool(np.count_nonzero(which) > _FEW * which.size)
