"""What a person wants to know of a mask: volumes and lesions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.labels import ORGAN_LABEL, TUMOR_LABEL


@dataclass(frozen=True, slots=True)
class Lesion:
    """One connected piece of tumour (voxels that share a face, an edge or a corner)."""

    volume_ml: float
    diameter_mm: float
    """Diameter of the ball of the same volume."""
    center_mm: tuple[float, float, float]
    """Centre of mass in the scan's world frame (right-anterior-superior, as NIfTI has it)."""
    slices: int
    """Slices it is seen in."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Volumes and lesions of a mask."""

    organ_ml: float
    """Pancreas and tumour together."""
    pancreas_ml: float
    """Pancreas without tumour: label 1."""
    tumor_ml: float
    """Tumour: label 2."""
    organ_slices: int
    tumor_slices: int
    lesions: tuple[Lesion, ...]
    """Largest first."""


def measure(mask: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], voxel_volume_ml: float) -> Measurements:
    """Measure a mask.

    Args:
        mask: `[z, row, col]`, labels 0, 1 and 2.
        affine: 4x4, from the index (z, row, col) to world millimetres.
        voxel_volume_ml: Volume of one voxel.
    """
    window = _around(mask)
    labels = mask[window]
    pancreas, tumor = ([np.count_nonzero(image == label) for image in labels] for label in (ORGAN_LABEL, TUMOR_LABEL))
    pancreas_ml, tumor_ml = int(np.sum(pancreas)) * voxel_volume_ml, int(np.sum(tumor)) * voxel_volume_ml
    corner = [side.start for side in window]
    return Measurements(
        organ_ml=pancreas_ml + tumor_ml,
        pancreas_ml=pancreas_ml,
        tumor_ml=tumor_ml,
        organ_slices=sum(any(counts) for counts in zip(pancreas, tumor, strict=True)),
        tumor_slices=sum(map(bool, tumor)),
        lesions=_lesions(labels, np.flatnonzero(tumor), corner, affine, voxel_volume_ml),
    )


def _lesions(
    labels: npt.NDArray[np.uint8],
    slices: npt.NDArray[np.intp],
    corner: Sequence[int],
    affine: npt.NDArray[np.float64],
    voxel_volume_ml: float,
) -> tuple[Lesion, ...]:
    """Measure the lesions in labels whose first voxel is voxel `corner` of the mask; `slices` are those with tumour."""
    if not len(slices):
        return ()
    lesions: list[Lesion] = []
    # No lesion crosses a slice without tumour, and what lies between two such slices has a box of its own.
    for run in np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1):
        first, last = int(run[0]), int(run[-1])
        tumor = labels[first : last + 1] == TUMOR_LABEL
        start = np.add(corner, (first, 0, 0))
        lesions += _connected(tumor, start, affine, voxel_volume_ml)
    return tuple(sorted(lesions, key=lambda lesion: lesion.volume_ml, reverse=True))


def _connected(
    tumor: npt.NDArray[np.bool_], start: npt.NDArray[np.intp], affine: npt.NDArray[np.float64], voxel_volume_ml: float
) -> Iterator[Lesion]:
    """Measure the connected pieces of `tumor`, whose first voxel is voxel `start` of the mask."""
    from scipy import ndimage

    window = _around(tumor)
    # Labelling only the tumour's own box is up to 40 times faster than the whole frame.
    components, count = ndimage.label(tumor[window], structure=np.ones((3, 3, 3)))
    # All pieces at once: speckle has thousands of them, and a look at each would take longer than the networks.
    places = np.nonzero(components)
    number = components[places] - 1
    voxels = np.bincount(number)
    sums = np.stack([np.bincount(number, weights=along) for along in places], axis=1)
    centers = sums / voxels[:, None] + start + [side.start for side in window]
    depth = len(components)
    slices = np.bincount(np.unique(number.astype(np.int64) * depth + places[0]) // depth)
    for piece in range(count):
        center = affine[:3, :3] @ centers[piece] + affine[:3, 3]
        volume_ml = int(voxels[piece]) * voxel_volume_ml
        yield Lesion(
            volume_ml=volume_ml,
            diameter_mm=float(np.cbrt(6000.0 * volume_ml / np.pi)),
            center_mm=(float(center[0]), float(center[1]), float(center[2])),
            slices=int(slices[piece]),
        )


def _around(mask: npt.NDArray[Any]) -> tuple[slice, slice, slice]:
    """The window `[z, row, col]` around everything that is not 0; empty where all is 0."""
    slices = _extent(np.array([image.any() for image in mask]))
    seen = np.bitwise_or.reduce(mask[slices], axis=0)
    return slices, _extent(seen.any(axis=1)), _extent(seen.any(axis=0))


def _extent(present: npt.NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(present)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
