"""Doing less in stage 1, for those who ask for it: fewer slices first, and no air around the body.

Both may change the mask, so both are off unless asked for, and every report says what was left out.
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
"""What lies above is body, or the table under it; fat begins at about -150, lungs lie below."""
BODY_GRID = 32
"""Sides of the body's box lie on multiples of this: engines see few shapes, and crops whose corners lie on a grid that
divides it have the corners that they have in the whole image."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Where stage 1 looks."""

    first_every: int = 1
    """It looks at every so-manieth slice first, and then only around those with pancreas; 1: at every slice."""
    body_box: bool = False
    """Whether it looks at the box around the body only, one for all slices; the scan is read whole before."""

    def __post_init__(self) -> None:
        check_argument("first_every", self.first_every, Integral, "a whole number")
        check_argument("body_box", self.body_box, bool, "True or False")
        if self.first_every < 1:
            sentence = (
                f"first_every: {self.first_every} is too few; 1 looks at every slice, 2 at every second one first"
            )
            raise UsageError(sentence)


WHOLE_SCAN = SearchOptions()
"""Every pixel of every slice."""


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """Where stage 1 has looked in a scan."""

    first_every: int = 1
    """As in `SearchOptions`."""
    body_box: Box | None = None
    """The box that it was confined to, where it was."""
    slices_left_out: int = 0
    """Slices that are background in the mask because no pancreas was found in their neighbourhood."""
    widened: bool = False
    """Whether the first slices held no pancreas at all, so that every slice was looked at after all."""


def first_slices(count: int, first_every: int) -> range:
    """The slices of `count` to look at first: as far from both ends as from each other, or less."""
    return range(min(first_every // 2, count - 1), count, first_every)


def neighbourhood(found: Sequence[int], count: int, first_every: int) -> list[int]:
    """The slices that may hold the organ, in order, if of the first ones those in `found` do.

    A slice that was looked at and held nothing ends the organ, so on each side of a find all slices up to the next
    that was looked at are in question.
    """
    wanted = np.zeros(count, dtype=bool)
    for index in found:
        wanted[max(0, index - first_every + 1) : index + first_every] = True
    return [int(index) for index in np.flatnonzero(wanted)]


def find_body(voxels: npt.NDArray[np.int16]) -> Box:
    """Return the box around everything denser than air in any slice `[z, row, col]`, HU.

    Its sides are moved outward to the grid as far as the image goes. Where there is nothing but air it is the whole
    image.
    """
    rows, cols = voxels.shape[1:]
    # The maximum over the slices needs one image; a comparison of all voxels would need a second volume.
    body = voxels.max(axis=0) > BODY_HU
    box = tightest_box(body.any(axis=1), body.any(axis=0), 0.5)
    if box is None:
        return Box(0, 0, rows, cols)
    return on_body_grid(box, (rows, cols))


def on_body_grid(box: Box, image_shape: tuple[int, int]) -> Box:
    """Move the sides of a box outward to the grid, as far as the image goes."""
    box = align(box, BODY_GRID)
    return Box(box.row, box.col, *box.inside(image_shape))
