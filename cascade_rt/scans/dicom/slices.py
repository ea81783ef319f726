"""What places and scales the image of one slice, parsed from its header."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.headers import Header, dicom_gate
from cascade_rt.scans.dicom.values import integer, number, numbers

Vector = tuple[float, float, float]

DIRECTION_TOLERANCE = 1e-3
_PLACING = {"ImagePositionPatient": 0x00200032, "ImageOrientationPatient": 0x00200037, "PixelSpacing": 0x00280030}
_INSTANCE, _SLOPE, _INTERCEPT = 0x00200013, 0x00281053, 0x00281052
_FRAMES, _SAMPLES, _ROWS, _COLUMNS = 0x00280008, 0x00280002, 0x00280010, 0x00280011
_HU = {"", "HU", "HU_MOD", "US"}
"""Rescale types of Hounsfield units. US is "unspecified", which the values themselves then have to show."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The header fields of one image that place and scale its pixels."""

    header: Header
    number: int | None
    position: Vector
    """The center of the first pixel in world mm (LPS+)."""
    row_direction: Vector
    """The direction along a row, toward higher columns; a unit vector (LPS+)."""
    column_direction: Vector
    pixel_mm: tuple[float, float]
    """The distance between rows, and between columns."""
    shape: tuple[int, int]
    """Rows and columns."""
    rescale: tuple[float, float]
    """Slope and intercept."""
    frame: int | None = None
    """Index from 0 of the image in a multi-frame object; None in a file of one image."""

    @property
    def shown(self) -> str:
        """How messages name it."""
        return self.header.file.shown if self.frame is None else f"{self.header.file.shown}: frame {self.frame + 1}"

    @property
    def short(self) -> str:
        """How messages name it beside another slice of the same scan."""
        return self.header.file.short if self.frame is None else f"frame {self.frame + 1}"

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """The unit vector perpendicular to the image."""
        (a, b, c), (x, y, z) = self.row_direction, self.column_direction
        return np.array([b * z - c * y, c * x - a * z, a * y - b * x])

    @property
    def height_mm(self) -> float:
        """The position of the slice along its normal."""
        return float(np.dot(self.position, self.normal))

    def __str__(self) -> str:
        number = "" if self.number is None else f"image {self.number}, "
        return f"{self.short} ({number}at {self.height_mm:.2f} mm)"


def parse_slice(header: Header) -> Slice:
    """Parse the header of a file with one image. Raises InputError if a field is missing or invalid."""
    shown, dataset = header.file.shown, header.dataset
    with dicom_gate(shown):
        shape = image_shape(shown, dataset)
        if (integer(dataset, _FRAMES, 1) or 1) > 1 or (integer(dataset, _SAMPLES, 1) or 1) > 1:
            raise InputError(
                f"{shown}: has several frames or color channels; convert it to .nii.gz with dcm2niix", code="E_NDIM"
            )
        placing = [numbers(dataset, tag) for tag in _PLACING.values()]
        rescale = (number(dataset, _SLOPE), number(dataset, _INTERCEPT), dataset.get("RescaleType"))
        return place(header, shown, placing, rescale, shape, _number(dataset))


def place(
    header: Header,
    shown: str,
    placing: Sequence[Any],
    rescale: Sequence[Any],
    shape: tuple[int, int],
    image: int | None,
    frame: int | None = None,
) -> Slice:
    """Check the fields that place and scale an image.

    Args:
        header: The header of its file.
        shown: How messages name it.
        placing: The values of ImagePositionPatient, ImageOrientationPatient and PixelSpacing, or None.
        rescale: The values of RescaleSlope, RescaleIntercept and RescaleType, or None.
        shape: Rows and columns.
        image: Its number in the series.
        frame: See `Slice`.

    Raises:
        InputError: A field is missing or invalid.
    """
    for tag, value in zip(_PLACING, placing, strict=True):
        if value in (None, ""):
            raise InputError(
                f"{shown}: has no {tag}, needed to place the slice; export the series again", code="E_AFFINE"
            )
    (x, y, z), orientation, (row_mm, column_mm) = (tuple(map(float, value)) for value in placing)
    row_direction, column_direction = _vector(orientation[:3]), _vector(orientation[3:])
    products = [
        sum(a * b for a, b in zip(*pair, strict=True))
        for pair in ((row_direction,) * 2, (column_direction,) * 2, (row_direction, column_direction))
    ]
    is_finite = all(map(math.isfinite, (x, y, z, row_mm, column_mm)))
    if not is_finite or max(abs(products[0] - 1), abs(products[1] - 1), abs(products[2])) > DIRECTION_TOLERANCE:
        sentence = "its directions are not perpendicular unit vectors"
        raise InputError(f"{shown}: {sentence}; export the series again", code="E_AFFINE")
    if min(row_mm, column_mm) <= 0 or min(shape) < 1:
        raise InputError(f"{shown}: its image or pixel size is not positive; export the series again", code="E_SPACING")
    return Slice(
        header=header,
        number=image,
        position=(x, y, z),
        row_direction=row_direction,
        column_direction=column_direction,
        pixel_mm=(row_mm, column_mm),
        shape=shape,
        rescale=_rescale(shown, *rescale),
        frame=frame,
    )


def image_shape(shown: str, dataset: Any) -> tuple[int, int]:
    """Return rows and columns. Raises InputError if they are missing."""
    rows, columns = integer(dataset, _ROWS), integer(dataset, _COLUMNS)
    if rows is None or columns is None:
        missing = "Rows" if rows is None else "Columns"
        raise InputError(
            f"{shown}: has no {missing}, needed to place the slice; export the series again", code="E_DIMS"
        )
    return rows, columns


def _number(dataset: Any) -> int | None:
    found = number(dataset, _INSTANCE)
    return None if found is None else int(found)


def _rescale(shown: str, slope: Any, intercept: Any, kind: Any) -> tuple[float, float]:
    if slope is None or intercept is None:
        raise InputError(
            f"{shown}: has no rescale slope or intercept; export the original CT series", code="E_NO_RESCALE"
        )
    if str(kind or "").strip().upper() not in _HU:
        raise InputError(
            f"{shown}: its rescale gives another quantity than Hounsfield units; export the original CT series",
            code="E_NOT_HU",
        )
    found = float(slope), float(intercept)
    if found[0] == 0 or not all(map(math.isfinite, found)):
        raise InputError(
            f"{shown}: its rescale slope or intercept is invalid; export the original CT series", code="E_SLOPE"
        )
    return found


def _vector(values: Sequence[float]) -> Vector:
    x, y, z = values
    return x, y, z
