"""Optional shortcuts for stage 1: look at a subset of slices first, and crop the air around the body.

Both may change the mask, so both are off by default, and every report says what was left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt

from cascade_rt.common.arguments import check_argument
from cascade_rt.errors import UsageError
from cascade_rt.models.crop import Box, align, tightest_box

BODY_HU = -500
"""Voxels above this are body or table. Fat begins at about -150; lungs lie below the threshold."""
BODY_GRID = 32
"""Sides of the body box lie on multiples of this, so that engines see few shapes. Crops whose corners lie on a grid
that divides it keep the corners they have in the whole image."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Which slices and pixels stage 1 looks at."""

    first_every: int = 1
    """Look at every k-th slice first, and then only around those with pancreas. 1 looks at every slice."""
    body_box: bool = False
    """Look only at the box around the body, the same for all slices. The whole scan is read first."""

    def __post_init__(self) -> None:
        check_argument("first_every", self.first_every, Integral, "an integer")
        check_argument("body_box", self.body_box, bool, "True or False")
        if self.first_every < 1:
            raise UsageError(f"first_every: must be at least 1, got {self.first_every}")


WHOLE_SCAN = SearchOptions()
"""Every pixel of every slice."""


def check_search(search: SearchOptions, *, scattered: bool) -> None:
    """Raise UsageError if slices would be skipped although nothing can be concluded from their neighbors."""
    check_argument("search", search, SearchOptions, "SearchOptions, such as SearchOptions(first_every=4)")
    if scattered and search.first_every > 1:
        rule = "relies on adjacent slices, and with `scattered` there are none"
        raise UsageError(f"`first_every` {rule}; leave it out")


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """Which slices and pixels of a scan stage 1 looked at."""

    first_every: int = 1
    """See `SearchOptions`."""
    body_box: Box | None = None
    """The box that stage 1 was confined to, or None."""
    slices_left_out: int = 0
    """Number of slices that are background in the mask because no pancreas was found near them."""
    widened: bool = False
    """Whether the first slices held no pancreas, so that stage 1 fell back to every slice."""


def first_slices(count: int, first_every: int) -> range:
    """Return which of `count` slices to look at first: every k-th, and within that distance of both ends."""
    return range(min(first_every // 2, count - 1), count, first_every)


def neighbourhood(found: Sequence[int], count: int, first_every: int) -> list[int]:
    """Return the slices that may hold the organ, in order, given those of the first slices in which it was found.

    A first slice without the organ bounds it. On each side of a slice in `found`, all slices up to the next first slice
    are therefore candidates.
    """
    wanted = np.zeros(count, dtype=bool)
    for index in found:
        wanted[max(0, index - first_every + 1) : index + first_every] = True
    return [int(index) for index in np.flatnonzero(wanted)]


def find_body(voxels: npt.NDArray[np.int16]) -> Box:
    """Return the box around everything denser than air in any slice of `[z, row, col]`, HU.

    The sides are moved outward to the grid, as far as the image extends. If there is nothing but air, the box is the
    whole image.
    """
    rows, cols = voxels.shape[1:]
    # The maximum over the slices needs one image. Comparing all voxels would need a second volume.
    body = voxels.max(axis=0) > BODY_HU
    box = tightest_box(body.any(axis=1), body.any(axis=0), 0.5)
    if box is None:
        return Box(0, 0, rows, cols)
    return on_body_grid(box, (rows, cols))


def on_body_grid(box: Box, image_shape: tuple[int, int]) -> Box:
    """Move the sides of a box outward to the grid, as far as the image extends."""
    box = align(box, BODY_GRID)
    return Box(box.row, box.col, *box.inside(image_shape))
