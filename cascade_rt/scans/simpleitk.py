"""Images of SimpleITK, whose world is LPS (x to the left, y to the back), while NIfTI's and ours is RAS."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.packages import import_package
from cascade_rt.scans.nifti.gate import RejectedFile

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_METHODS = ("GetOrigin", "GetSpacing", "GetDirection", "GetDimension", "GetNumberOfComponentsPerPixel")


def is_simpleitk(image: object) -> bool:
    """Return whether an object is an image of SimpleITK, which is not imported to find out."""
    return all(callable(getattr(image, name, None)) for name in _METHODS)


def from_simpleitk(image: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Return a copy of the voxels `[i, j, k]` of an image, and its affine, 4x4, from the index to world mm (RAS+).

    Raises:
        RejectedFile: The image does not have three axes and one number per voxel.
    """
    size, components = tuple(image.GetSize()), image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() != 3 or components != 1:
        found = f"this image of SimpleITK has size {size} and {components} numbers per voxel"
        raise RejectedFile("E_NDIM", f"a scan has 3 axes and one number per voxel, but {found}; pass one 3D image")
    library = import_package("SimpleITK", needed_by="an image of SimpleITK", extra="simpleitk")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    array: npt.NDArray[Any] = library.GetArrayFromImage(image).T
    return array, _LPS_TO_RAS @ affine


def to_simpleitk(array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> Any:
    """Return an array `[i, j, k]` as a `SimpleITK.Image`.

    Args:
        array: A copy of it becomes the image.
        affine: 4x4, from the index (i, j, k) to world mm (RAS+). Axes that are not at right angles stay so in the
            direction of the image.

    Raises:
        BackendUnavailableError: The package SimpleITK is not installed.
    """
    library = import_package("SimpleITK", needed_by="an image of SimpleITK", extra="simpleitk")
    image = library.GetImageFromArray(np.ascontiguousarray(array.T))
    in_lps = _LPS_TO_RAS @ affine
    spacing = np.linalg.norm(in_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((in_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(in_lps[:3, 3].tolist())
    return image
