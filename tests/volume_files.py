"""NIfTI files and orientations that the tests of `cascade_rt.scans.volume` share."""

import gzip
import itertools
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

Array = npt.NDArray[Any]

# [z, row, col]; every voxel differs, so that no flip or permutation goes unseen.
ANATOMY = (np.arange(4 * 5 * 6).reshape(4, 5, 6) * 7 - 400).astype(np.int16)
LPS_AFFINE = np.array([[-0.7, 0, 0, 31], [0, -0.8, 0, 12], [0, 0, 2.5, -90], [0, 0, 0, 1]])


def noisy_tissue(*shape: int) -> Array:
    """HU that pass for a CT: noise around soft tissue, down to air."""
    return np.random.default_rng(0).normal(40, 100, shape).astype(np.int16)


ORIENTATIONS = [
    np.column_stack([axes, signs])
    for axes in itertools.permutations((0, 1, 2))
    for signs in itertools.product((1, -1), repeat=3)
]


def rotation(around_x: float, around_z: float) -> Array:
    """A 4x4 rotation; angles in degrees."""
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(z=math.radians(around_z), x=math.radians(around_x)))


SHEAR = np.array([[1, 0, 0, 0], [0, 1, 0.25, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
WORLDS = {"straight": np.eye(4), "oblique": rotation(20, 15), "sheared": SHEAR}


def oriented(orientation: Array, world: Array, anatomy: Array = ANATOMY) -> tuple[Array, Array]:
    """The anatomy `[z, row, col]` as `[i, j, k]` with its axes in one of the 48 orientations, and its affine."""
    to_source = orientation.astype(float)
    return apply_orientation(anatomy.T, to_source), world @ LPS_AFFINE @ inv_ornt_aff(to_source, anatomy.T.shape)


def nifti(array: Array, affine: Array = LPS_AFFINE, *, slope: float = 1, inter: float = 0) -> bytes:
    """The plain file of `[i, j, k]`: voxels as they are, the scaling in the header only."""
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    return patched(image.to_bytes(), 112, [slope, inter], "<f4")


def patched(content: bytes, offset: int, values: list[float], dtype: str) -> bytes:
    """Put other numbers into a file."""
    changed = np.array(values, dtype).tobytes()
    return content[:offset] + changed + content[offset + len(changed) :]


def unplaced(content: bytes) -> bytes:
    """The same file, which no longer says how its axes lie."""
    return patched(content, 252, [0, 0], "<i2")


def assert_placed_alike(mask: Any, scan: Any) -> None:
    """Headers place their voxels alike, and what places nothing in the one of the mask is 0."""
    assert mask["dim"][1:4].tolist() == scan["dim"][1:4].tolist()
    assert int(mask["xyzt_units"]) == int(scan["xyzt_units"]) & 7
    assert mask["sform_code"] == scan["sform_code"]
    rows, turns = ("srow_x", "srow_y", "srow_z"), ("quatern_b", "quatern_c", "quatern_d")
    turns += ("qoffset_x", "qoffset_y", "qoffset_z")
    for name in rows:
        np.testing.assert_array_equal(mask[name], scan[name] if scan["sform_code"] > 0 else np.zeros(4))
    assert mask["pixdim"][4:].tolist() == [0, 0, 0, 0]
    if mask["qform_code"] == 0:
        assert all(mask[name] == 0 for name in turns)
        assert mask["pixdim"][0] == 1
    else:
        assert mask["qform_code"] == scan["qform_code"]
        assert all(mask[name] == scan[name] for name in turns)
        assert (mask["pixdim"][0] == -1) == (scan["pixdim"][0] == -1)
        np.testing.assert_array_equal(mask["pixdim"][1:4], np.abs(scan["pixdim"][1:4]))


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


GOOD = nifti(ANATOMY.T)
CUBE = np.zeros((2, 2, 2))

in_every_orientation = pytest.mark.parametrize(
    "orientation", ORIENTATIONS, ids=lambda o: "".join(nib.orientations.ornt2axcodes(o))
)
in_every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
