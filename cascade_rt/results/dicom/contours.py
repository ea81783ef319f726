"""Outline a mask in one slice with closed polygons."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

_Point = tuple[int, int]

_TOP, _LEFT, _BOTTOM, _RIGHT = (0, 1), (1, 0), (2, 1), (1, 2)
"""Middles of the sides of a cell, as (row, col) in half pixels from the center of its top left pixel."""
_STEPS: tuple[tuple[tuple[_Point, _Point], ...], ...] = (
    (),
    ((_TOP, _LEFT),),
    ((_RIGHT, _TOP),),
    ((_RIGHT, _LEFT),),
    ((_LEFT, _BOTTOM),),
    ((_TOP, _BOTTOM),),
    ((_LEFT, _BOTTOM), (_RIGHT, _TOP)),
    ((_RIGHT, _BOTTOM),),
    ((_BOTTOM, _RIGHT),),
    ((_TOP, _LEFT), (_BOTTOM, _RIGHT)),
    ((_BOTTOM, _TOP),),
    ((_BOTTOM, _LEFT),),
    ((_LEFT, _RIGHT),),
    ((_TOP, _RIGHT),),
    ((_LEFT, _TOP),),
    (),
)
"""The steps of the outline through a cell of four pixels, the mask on one side of all of them. The cell is numbered by
its pixels in the mask: 1 top left, 2 top right, 4 bottom left, 8 bottom right. Pixels that touch at a corner alone are
outlined apart, so that each middle has one step to it and one from it."""


def outlines(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.float64]]:
    """Return the polygons around a mask and around its holes.

    Corners lie halfway between the centers of pixels, so that the centers inside an odd number of polygons are exactly
    the mask; a single pixel is a diamond.

    Args:
        mask: `[row, col]`.

    Returns:
        Polygons `[corner, (row, col)]` in pixels, the center of the first pixel at 0. The first corner is not
        repeated.
    """
    following = _steps(mask)
    found = []
    while following:
        start = point = next(iter(following))
        corners = []
        while point in following:
            corners.append(point)
            point = following.pop(point)
        if point != start:
            raise RuntimeError("an outline is not closed")
        found.append(np.array(_without_straight(corners)) / 2.0)
    return found


def _steps(mask: npt.NDArray[np.bool_]) -> dict[_Point, _Point]:
    """Return for each corner of the outlines the next one, in half pixels."""
    bits = np.pad(mask, 1).astype(np.uint8)
    cells = bits[:-1, :-1] | bits[:-1, 1:] << 1 | bits[1:, :-1] << 2 | bits[1:, 1:] << 3
    following: dict[_Point, _Point] = {}
    for row, col in np.argwhere((cells > 0) & (cells < len(_STEPS) - 1)).tolist():
        # The mask was padded, so the top left pixel of cell (row, col) is (row - 1, col - 1).
        top, left = 2 * (row - 1), 2 * (col - 1)
        for (from_row, from_col), (to_row, to_col) in _STEPS[cells[row, col]]:
            following[top + from_row, left + from_col] = (top + to_row, left + to_col)
    return following


def _without_straight(corners: list[_Point]) -> list[_Point]:
    """Return a polygon without the corners at which it goes straight on."""
    around = [corners[-1], *corners, corners[0]]
    directions = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(around)]
    turns = zip(corners, pairwise(directions), strict=True)
    return [corner for corner, (before, after) in turns if before != after]
