"""Where a crop is put so that the cascade can look at it: a frame around it, and what fills the frame.

Stage 2 is trained on the box of the pancreas with a margin; a crop ends where the gland does, so the margin has to be
made up. No way of doing that is right; what holds in all of them is more likely to be about the crop.

    mirror     the crop mirrored at its sides, again and again
    fat        -100 HU everywhere
    patient    a slice of a healthy patient, the crop in the middle of where its pancreas was
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.patients.cases import Patient
from benchmarks.tumor_crops.crops import Crop, HuSlice

Filling = Literal["mirror", "fat", "patient"]
FILLINGS: tuple[Filling, ...] = get_args(Filling)
FAT_HU = -100.0
SIDE = 320
"""Rows and columns of a frame that is made up; larger where a crop needs it."""
_LEAST_MARGIN = 32
_MULTIPLE = 64


@dataclass(frozen=True, eq=False, slots=True)
class Placed:
    """A crop in a frame."""

    hu: HuSlice
    """`[row, col]`."""
    box: tuple[slice, slice]
    """Where in it the crop lies."""


def fillings(healthy: Sequence[Patient]) -> dict[Filling, Callable[[Crop], Placed]]:
    """The ways to place a crop; `patient` only where there are healthy patients to place it in."""
    ways: dict[Filling, Callable[[Crop], Placed]] = {"mirror": mirrored, "fat": in_fat}
    if healthy:
        slices = [
            (patient.volume.voxels[z], patient.truth[z])
            for patient in healthy
            for z in np.flatnonzero(patient.truth.any(axis=(1, 2)))
        ]
        ways["patient"] = lambda crop: in_slice(crop, *slices[crop.slice % len(slices)])
    return ways


def mirrored(crop: Crop) -> Placed:
    """Mirror a crop at its sides until the frame is full."""
    box = _middle(crop)
    pads = [(side.start, length - side.stop) for side, length in zip(box, _frame(crop), strict=True)]
    return Placed(np.pad(crop.hu, pads, mode="symmetric"), box)


def in_fat(crop: Crop) -> Placed:
    """Surround a crop with fat."""
    frame = np.full(_frame(crop), FAT_HU, dtype=np.float32)
    box = _middle(crop)
    frame[box] = crop.hu
    return Placed(frame, box)


def in_slice(crop: Crop, hu: npt.NDArray[np.int16], organ: npt.NDArray[np.bool_]) -> Placed:
    """Put a crop over the pancreas of a slice of another patient, middle on middle, inside the frame."""
    frame = hu.astype(np.float32)
    sides = []
    for axis, (length, whole) in enumerate(zip(crop.hu.shape, frame.shape, strict=True)):
        present = np.flatnonzero(organ.any(axis=1 - axis))
        start = min(max(0, int(present[0] + present[-1] + 1 - length) // 2), max(0, whole - length))
        sides.append(slice(start, start + length))
    box = (sides[0], sides[1])
    frame[box] = crop.hu
    return Placed(frame, box)


def _frame(crop: Crop) -> tuple[int, int]:
    rows, cols = (max(SIDE, -(-(length + 2 * _LEAST_MARGIN) // _MULTIPLE) * _MULTIPLE) for length in crop.hu.shape)
    return rows, cols


def _middle(crop: Crop) -> tuple[slice, slice]:
    rows, cols = (
        slice((whole - length) // 2, (whole - length) // 2 + length)
        for whole, length in zip(_frame(crop), crop.hu.shape, strict=True)
    )
    return rows, cols
