"""Place the voxels of a NIfTI file in the world: units, spacing, qform and sform.

The sform is used if present, otherwise the qform, as in nibabel. Without either, left and right cannot be told apart,
and the file is refused unless the user states the orientation.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header

from cascade_rt.errors import InputWarning
from cascade_rt.scans.nifti.gate import RejectedFile
from cascade_rt.scans.nifti.options import ScanOptions

Affine = npt.NDArray[np.float64]

GEOMETRY_FIELDS = (
    *("pixdim", "xyzt_units", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)

_KNOWN_CODES = range(6)
_SPATIAL_UNIT = 7
"""Mask of the bits of `xyzt_units` that hold the spatial unit."""
_MM_PER_UNIT = {1: 1e3, 2: 1.0, 3: 1e-3}
_PLAUSIBLE_MM = (0.2, 10.0)
"""Plausible spacing of a scan. If a spacing in meters or micrometers lies outside, the unit in the header is wrong."""
_DISAGREEMENT_MM = 5.0
_DISAGREEMENT = 0.1
"""How far apart qform and sform may place a corner without a warning, as a fraction of the smallest spacing."""
_SPACING_DISAGREEMENT = 0.01
"""Relative difference between the voxel sizes of affine and `pixdim` that is tolerated without a warning."""
_STRAIGHT_DEGREES = 0.1
# As in nibabel: rounding to float32 may leave the squared norm of a unit quaternion this much above 1.
_QUATERNION_ROUNDING = 3 * float(np.finfo(np.float32).eps)
_DIRECTIONS = {"R": (0, 1.0), "L": (0, -1.0), "A": (1, 1.0), "P": (1, -1.0), "S": (2, 1.0), "I": (2, -1.0)}


def place(
    fields: Nifti1Header,
    shape: tuple[int, int, int],
    options: ScanOptions,
    warnings: list[InputWarning],
) -> Affine:
    """Return the affine (4x4, index (i, j, k) to world mm, RAS+), appending any doubts about it to `warnings`.

    Raises:
        RejectedFile: The voxels cannot be placed.
    """
    sform_code, qform_code = int(fields["sform_code"]), int(fields["qform_code"])
    if sform_code not in _KNOWN_CODES or qform_code not in _KNOWN_CODES:
        sentence = f"its sform code {sform_code} or its qform code {qform_code} is not defined by NIfTI"
        raise RejectedFile("E_ORIENT", f"{sentence}; export it again")
    spacing = np.array(fields["pixdim"][1:4], dtype=np.float64)
    if sform_code > 0:
        affine = _sform(fields)
    else:
        check_spacing(spacing)
        affine = _qform(fields) if qform_code > 0 else assume(spacing, shape, options, warnings, "no qform, no sform")
    check_affine(affine)
    _warn_of_spacing(spacing, affine, warnings)
    if sform_code == 0 and qform_code > 0:
        _warn_of_handedness(fields, warnings)
    affine[:3] *= _unit_mm(fields, affine, warnings)
    if sform_code > 0 and qform_code > 0:
        _compare_forms(fields, affine, shape, options, warnings)
    warnings += shear_warnings(affine)
    return affine


def shear_warnings(affine: Affine) -> tuple[InputWarning, ...]:
    """Return a warning if the axes of a scan are not perpendicular."""
    shear = shear_degrees(affine)
    if shear <= _STRAIGHT_DEGREES:
        return ()
    sentence = f"its axes are {shear:.1f} degrees from perpendicular (gantry tilt?); slices are segmented as they are"
    return (InputWarning("W_SHEAR", sentence),)


def what_places(fields: Nifti1Header) -> Nifti1Header:
    """Return a copy of a placeable header whose geometry fields are reset where they have no effect on placement.

    Masks inherit these fields from their scans, and a field without meaning could hold text about a patient.
    """
    placing: Nifti1Header = fields.copy()
    pixdim = placing["pixdim"]
    pixdim[1:4] = np.abs(pixdim[1:4])
    pixdim[4:] = 0
    placing["xyzt_units"] = int(placing["xyzt_units"]) & _SPATIAL_UNIT
    has_sform = int(fields["sform_code"]) > 0
    if not has_sform:
        for name in ("srow_x", "srow_y", "srow_z"):
            placing[name] = 0
    if int(fields["qform_code"]) > 0 and not (has_sform and _sensible_qform(fields) is None):
        pixdim[0] = -1 if pixdim[0] == -1 else 1
        return placing
    pixdim[0] = 1
    for name in ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        placing[name] = 0
    if has_sform and _is_other_spacing(np.array(pixdim[1:4], dtype=np.float64), _sform(fields)):
        pixdim[1:4] = np.linalg.norm(_sform(fields)[:3, :3], axis=0)
    return placing


def aligned_geometry(affine: Affine) -> dict[str, npt.NDArray[Any]]:
    """Return the geometry fields of an image in mm that only an sform places."""
    header = Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="aligned")
    header.set_qform(affine, code="unknown")
    placing = what_places(header)
    return {field: np.array(placing[field]) for field in GEOMETRY_FIELDS}


def unplaced_geometry(spacing: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    """Return the geometry fields of an image in mm of which only the voxel sizes are known."""
    header = Nifti1Header()
    header.set_xyzt_units("mm")
    header["pixdim"][:4] = [1, *np.abs(spacing)]
    header["pixdim"][4:] = 0
    return {field: np.array(header[field]) for field in GEOMETRY_FIELDS}


def check_affine(affine: Affine) -> None:
    """Raise RejectedFile if a matrix cannot be the affine of a scan."""
    if affine.shape != (4, 4) or not (np.abs(affine) < 1e9).all():
        raise RejectedFile("E_AFFINE", "the affine must be a 4x4 matrix of plausible mm values; export it again")
    if affine[3].tolist() != [0, 0, 0, 1]:
        raise RejectedFile("E_AFFINE", "the last row of an affine must be 0, 0, 0, 1; is it transposed?")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    determinant = abs(np.linalg.det(affine[:3, :3]))
    if lengths.min() < 1e-9 or determinant < 1e-6 * lengths.prod():
        raise RejectedFile("E_AFFINE", "the affine is singular (axes are parallel or have no length); export it again")


def shear_degrees(affine: Affine) -> float:
    """Return how far the axes are from perpendicular, in degrees."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs((axes.T @ axes)[np.triu_indices(3, 1)]).max()
    return math.degrees(math.asin(min(float(cosines), 1.0)))


def _sform(fields: Nifti1Header) -> Affine:
    affine = np.eye(4)
    affine[:3] = [fields["srow_x"], fields["srow_y"], fields["srow_z"]]
    return affine


def _qform(fields: Nifti1Header) -> Affine:
    b, c, d = (float(fields[name]) for name in ("quatern_b", "quatern_c", "quatern_d"))
    squares = b * b + c * c + d * d
    handedness = float(fields["pixdim"][0])
    if not squares <= 1 + _QUATERNION_ROUNDING:
        raise RejectedFile("E_AFFINE", "its qform is not a rotation; export it again")
    a = math.sqrt(max(0.0, 1 - squares))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    spacing = np.abs(np.array(fields["pixdim"][1:4], dtype=np.float64))
    affine = np.eye(4)
    affine[:3, :3] = rotation * (spacing * [1, 1, -1 if handedness == -1 else 1])
    affine[:3, 3] = [fields["qoffset_x"], fields["qoffset_y"], fields["qoffset_z"]]
    return affine


def _sensible_qform(fields: Nifti1Header) -> Affine | None:
    try:
        check_spacing(np.array(fields["pixdim"][1:4], dtype=np.float64))
        qform = _qform(fields)
        check_affine(qform)
    except RejectedFile:
        return None
    return qform


def assume(
    spacing: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    options: ScanOptions,
    warnings: list[InputWarning],
    missing: str,
) -> Affine:
    """Return the affine of a file without orientation, with the center of the image at the world origin.

    Args:
        spacing: Voxel sizes along (i, j, k) in mm.
        shape: Number of voxels along them.
        options: What the user knows about the file.
        warnings: The assumption is appended.
        missing: What the file lacks, such as "no qform, no sform".

    Raises:
        RejectedFile: The user does not state the orientation.
    """
    axes = options.assume_orientation
    if axes is None:
        raise RejectedFile(
            "E_ORIENT",
            f"the file does not state its orientation ({missing}), so left and right cannot be told apart; "
            "export it again or set `assume_orientation`, such as LPS",
        )
    warnings.append(InputWarning("W_ORIENT", f"the file does not state its orientation; {axes} is assumed"))
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, direction in enumerate(axes):
        world, sign = _DIRECTIONS[direction]
        affine[world, axis] = sign * abs(spacing[axis])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def check_spacing(spacing: npt.NDArray[np.float64]) -> None:
    """Raise RejectedFile if a header gives voxel sizes that are 0 or not finite. Their signs do not matter."""
    if not (np.isfinite(spacing) & (spacing != 0)).all():
        raise RejectedFile("E_SPACING", f"its header gives an invalid voxel size, {_shown(spacing)}; export it again")


def _warn_of_spacing(spacing: npt.NDArray[np.float64], affine: Affine, warnings: list[InputWarning]) -> None:
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        sentence = (
            f"its header gives an invalid voxel size, {_shown(spacing)}; the sign is ignored, and the sform is used if "
            "present"
        )
    elif _is_other_spacing(spacing, affine):
        taken = _shown(np.linalg.norm(affine[:3, :3], axis=0))
        sentence = f"its header gives a voxel size of {_shown(spacing)}, but its sform {taken}; the sform is used"
    else:
        return
    warnings.append(InputWarning("W_SPACING", sentence))


def _warn_of_handedness(fields: Nifti1Header, warnings: list[InputWarning]) -> None:
    handedness = float(fields["pixdim"][0])
    if handedness not in {-1.0, 0.0, 1.0}:
        # As in nibabel. The reference implementation treats any negative value as -1.
        sentence = f"its header gives {handedness:g} instead of 1 or -1 as the slice direction (qfac); 1 is used"
        if handedness < 0:
            sentence += ", but some programs use -1, which reverses the slices"
        warnings.append(InputWarning("W_QFAC", sentence))


def _is_other_spacing(spacing: npt.NDArray[np.float64], affine: Affine) -> bool:
    """Return whether `pixdim` and the affine disagree on the voxel size. NaN counts as disagreement."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return not (np.abs(np.abs(spacing) - lengths) <= _SPACING_DISAGREEMENT * lengths).all()


def _shown(spacing: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{side:.6g}" for side in spacing)


def _unit_mm(fields: Nifti1Header, affine: Affine, warnings: list[InputWarning]) -> float:
    """Return the length of the header's spatial unit in mm."""
    code = int(fields["xyzt_units"]) & _SPATIAL_UNIT
    if code not in _MM_PER_UNIT:
        warnings.append(InputWarning("W_UNITS", "the file does not give the unit of its spacing; mm is assumed"))
        return 1.0
    factor = _MM_PER_UNIT[code]
    spacing = np.linalg.norm(affine[:3, :3], axis=0) * factor
    low, high = _PLAUSIBLE_MM
    if factor != 1 and not (low <= spacing.min() and spacing.max() <= high):
        shown = " x ".join(f"{side:.3g}" for side in spacing)
        unit = "meters" if code == 1 else "micrometers"
        raise RejectedFile(
            "E_UNITS", f"its spacing, given in {unit}, would be {shown} mm; correct the unit in its header"
        )
    return factor


def _compare_forms(
    fields: Nifti1Header,
    affine: Affine,
    shape: tuple[int, int, int],
    options: ScanOptions,
    warnings: list[InputWarning],
) -> None:
    """Warn if the qform, which other programs use, places the scan differently from the sform used here."""
    qform = _sensible_qform(fields)
    if qform is None:
        warnings.append(InputWarning("W_FORM_DISAGREE", "its qform is invalid; the sform is used"))
        return
    qform[:3] *= _MM_PER_UNIT.get(int(fields["xyzt_units"]) & _SPATIAL_UNIT, 1.0)
    distance = corner_distance_mm(affine, qform, shape)
    if distance > _DISAGREEMENT * np.linalg.norm(affine[:3, :3], axis=0).min():
        sentence = f"its qform and sform place it up to {distance:.3g} mm apart"
        if options.strict and distance > _DISAGREEMENT_MM:
            raise RejectedFile("E_FORM_DISAGREE", f"{sentence}; make them agree or omit `strict`")
        warnings.append(InputWarning("W_FORM_DISAGREE", f"{sentence}; the sform is used, and the mask keeps both"))


def corner_distance_mm(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """Return the largest distance in mm between the corners of a grid of this shape under two affines."""
    corners = np.array([(*corner, 1.0) for corner in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1.0]
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())
