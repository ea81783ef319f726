"""The voxels of a report page: small enough to mail, full resolution where the mask is.

A page holds the scan as 8-bit values over the abdominal window in two parts: the whole scan at a coarse resolution, and
the box around the mask at a finer one. The page puts them together; `viewer.js` has the other half of this code.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from nibabel.nifti1 import Nifti1Header

from cascade_rt.results.slice_panel import WINDOW_HU
from cascade_rt.scans.volume import Volume

LONGEST_SIDE = 2048
"""Voxels along one axis that every browser with WebGL 2 can show."""
MOST_VOXELS = 48_000_000
"""Voxels that the memory of a small graphics card holds: 183 slices of 512 x 512. Of more, the nearest are shown."""
MARGIN_MM = 25.0
"""Distance from the mask to the sides of the box with the finer resolution."""
_STEPS = ((1, 1), (2, 1), (3, 1), (4, 1), (4, 2), (8, 2), (8, 4), (16, 8), (32, 16))
"""Pixels that are averaged along rows and columns, outside the box and inside it; the first pair that fits is taken."""
_COMPRESSION, _GZIP_BITS = 3, 31

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the scan, all of it or a box, in `[z, row, col]` with pixels averaged in plane."""

    start: tuple[int, int, int]
    """The first voxel of the scan in it, `[z, row, col]`."""
    size: tuple[int, int, int]
    """The voxels of the scan that it covers, `[z, row, col]`."""
    factor: int
    """Pixels of the scan along each side of a pixel of the part."""
    content: bytes
    """Gzip of uint8 in C order. The last pixel of a row or column may stand for fewer than `factor` pixels."""


@dataclass(frozen=True, slots=True)
class PageVolume:
    """A scan and its mask as a page holds them."""

    slices: slice
    """The slices of the scan that are shown."""
    header: bytes
    """Header of the NIfTI file that the page puts together: 352 bytes."""
    parts: tuple[Part, ...]
    """The whole scan, then the box around the mask, if there is one and it is finer."""
    mask: bytes
    """The mask, a NIfTI file with gzip."""


def page_volume(
    volume: Volume, mask: Bytes, most_bytes: int, middle: int, most_voxels: int = MOST_VOXELS
) -> PageVolume | None:
    """Return a scan and its mask `[z, row, col]` in at most `most_bytes`, or as small as they get.

    Args:
        volume: The scan.
        mask: Its mask.
        most_bytes: Size of the compressed voxels to stay below.
        middle: The slice around which others are shown, if they are too many.
        most_voxels: The voxels to show at most.

    Returns:
        None if a slice is too large for a browser to show.
    """
    rows, cols = mask.shape[1:]
    if max(rows, cols) > LONGEST_SIDE:
        return None
    count = min(len(mask), max(1, most_voxels // (rows * cols)), LONGEST_SIDE)
    first = min(max(0, middle - count // 2), len(mask) - count)
    slices = slice(first, first + count)
    content = _compress(_header(volume, slices, is_mask=True) + mask[slices].tobytes())
    smallest: tuple[Part, ...] = ()
    for parts in _attempts(volume.voxels[slices], mask[slices], volume.spacing_mm):
        smallest = parts
        if sum(len(part.content) for part in parts) + len(content) <= most_bytes:
            break
    return PageVolume(slices, _header(volume, slices, is_mask=False), smallest, content)


def _attempts(
    voxels: npt.NDArray[np.int16], mask: Bytes, spacing_mm: tuple[float, float, float]
) -> Iterator[tuple[Part, ...]]:
    """Yield the parts of a scan at lower and lower resolutions."""
    everything = (slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2]))
    box = _box(mask, spacing_mm)
    for outside, inside in _STEPS:
        parts = [_part(voxels, everything, outside)]
        if box is not None and inside < outside:
            parts.append(_part(voxels, box, inside))
        yield tuple(parts)


def _box(mask: Bytes, spacing_mm: tuple[float, float, float]) -> tuple[slice, slice, slice] | None:
    """Return the box around a mask with its margin, or None if the mask is empty."""
    window = []
    for axis, step in enumerate(spacing_mm):
        present = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(present):
            return None
        margin = round(MARGIN_MM / step)
        window.append(slice(max(0, int(present[0]) - margin), min(mask.shape[axis], int(present[-1]) + 1 + margin)))
    return window[0], window[1], window[2]


def _part(voxels: npt.NDArray[np.int16], window: tuple[slice, slice, slice], factor: int) -> Part:
    # Slice by slice: a whole scan in float32 would be the largest array of a run.
    content = b"".join(coded(_averaged(image, factor)).tobytes() for image in voxels[window])
    start, size = (
        tuple(values) for values in zip(*((side.start, side.stop - side.start) for side in window), strict=True)
    )
    return Part((start[0], start[1], start[2]), (size[0], size[1], size[2]), factor, _compress(content))


def coded(hu: npt.NDArray[np.float32]) -> Bytes:
    """Return Hounsfield units as uint8: 0 is the lower end of the abdominal window and below, 255 the upper end."""
    low, high = WINDOW_HU
    return np.asarray(np.clip(np.rint((hu - low) * (255 / (high - low))), 0, 255), dtype=np.uint8)


def _averaged(image: npt.NDArray[np.int16], factor: int) -> npt.NDArray[np.float32]:
    """Average blocks of a slice `[row, col]`; blocks at the end that are not whole continue with the last pixel."""
    values = image.astype(np.float32).clip(*WINDOW_HU)
    if factor == 1:
        return values
    rows, cols = (-side % factor for side in values.shape)
    padded = np.pad(values, ((0, rows), (0, cols)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def _header(volume: Volume, slices: slice, *, is_mask: bool) -> bytes:
    """Return the header of a NIfTI file of uint8 on the canonical grid: first axis columns, then rows, then slices."""
    affine = volume.affine.copy()
    affine[:3, 3] += slices.start * affine[:3, 0]
    _, rows, cols = volume.voxels.shape
    header = Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((cols, rows, slices.stop - slices.start))
    header.set_zooms(volume.spacing_mm[::-1])
    header.set_xyzt_units("mm")
    header.set_sform(affine[:, [2, 1, 0, 3]], code=1)
    header["vox_offset"] = 352
    low, high = WINDOW_HU
    header["scl_slope"], header["scl_inter"] = (1, 0) if is_mask else ((high - low) / 255, low)
    header["cal_min"], header["cal_max"] = (0, 255) if is_mask else (low, high)
    return bytes(header.binaryblock) + bytes(4)


def _compress(content: bytes) -> bytes:
    """Compress with gzip, without a file name or a time."""
    stream = isal_zlib.compressobj(_COMPRESSION, isal_zlib.DEFLATED, _GZIP_BITS)
    return bytes(stream.compress(content) + stream.flush())
