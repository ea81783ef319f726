"""Find the orientation of a label on its scan when the headers do not give it reliably.

The labels of NIH Pancreas-CT are in a different frame from its DICOM series. When correctly oriented, the outline of a
label follows the edges of the organ: inside, Hounsfield units vary by 16 to 31. Just outside are fat, gut and vessels,
and they vary about twice as much. Low variation inside is not sufficient on its own: a mirrored pancreas lands in the
liver, which is more uniform than the pancreas.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade_rt.data.names import FLIPS, Flip, FlipChoice
from cascade_rt.errors import InputError

PLAUSIBLE_MEAN_HU = (0.0, 200.0)
LARGEST_STD_HU = 60.0
_SMALLEST_EDGE = 1.5
_CLEARLY_BETTER = 1.25
_RIM_PIXELS = 2
_TISSUE_HU = (-150, 250)
"""HU are clipped to this range, so that gas and bone beside an organ count as much as fat and vessels, not ten times
as much."""
_AXES = {"z": 0, "y": 1, "x": 2}

_Places = tuple[npt.NDArray[np.intp], ...]


@dataclass(frozen=True, slots=True)
class FlipFit:
    """How a flipped label fits a scan."""

    flip: Flip
    mean_hu: float
    """Mean of the scan inside the label."""
    std_hu: float
    """Standard deviation of the scan inside the label."""
    edge: float
    """Standard deviation two pixels outside the label over that inside, with HU clipped to -150 to 250."""

    @property
    def plausible(self) -> bool:
        """Whether the mean is that of soft tissue."""
        low, high = PLAUSIBLE_MEAN_HU
        return low <= self.mean_hu <= high


def flip_label(label: npt.NDArray[np.uint8], flip: Flip) -> npt.NDArray[np.uint8]:
    """Flip a label `[z, row, col]` along any of z, y (rows) and x (columns)."""
    return np.ascontiguousarray(np.flip(label, _flipped_axes(flip)))


def choose_flip(
    image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8], choice: FlipChoice = "auto"
) -> tuple[FlipFit, tuple[str, ...]]:
    """Choose how to flip a label.

    Args:
        image: `[z, row, col]`, HU.
        label: `[z, row, col]`, the same shape.
        choice: `auto` selects the flip with the sharpest edge among those with a mean of 0 to 200 HU inside the label.
            Any other choice is used as given.

    Returns:
        The chosen flip with its fit, and warnings if the fit is doubtful.

    Raises:
        InputError: The label is empty, or no flip puts it on soft tissue.
    """
    inside = np.nonzero(label)
    if not inside[0].size:
        raise InputError("its label is empty; export the label again")
    rim = _rim(label, inside)
    fits = [_fit(image, inside, rim, flip) for flip in FLIPS if choice in ("auto", flip)]
    if choice != "auto":
        return fits[0], _flip_warnings(fits)
    plausible = sorted((fit for fit in fits if fit.plausible), key=lambda fit: -fit.edge)
    if not plausible:
        means = ", ".join(f"{fit.flip} {fit.mean_hu:.0f}" for fit in fits)
        raise InputError(
            f"no flip places its label on soft tissue (mean HU: {means}); "
            "use the label of this scan, or choose a flip with `label_flip`"
        )
    return plausible[0], _flip_warnings(plausible)


def _rim(label: npt.NDArray[np.uint8], inside: _Places) -> _Places:
    """Return the voxels two pixels outside the label, in the plane of the slices."""
    from scipy import ndimage

    start = [max(0, int(places.min()) - _RIM_PIXELS) for places in inside]
    box = tuple(slice(low, int(places.max()) + 1 + _RIM_PIXELS) for low, places in zip(start, inside, strict=True))
    plane = ndimage.generate_binary_structure(3, 1)
    plane[[0, 2]] = False
    near = ndimage.binary_dilation(label[box] > 0, plane, iterations=_RIM_PIXELS - 1)
    rim = np.nonzero(ndimage.binary_dilation(near, plane) & ~near)
    return tuple(places + low for places, low in zip(rim, start, strict=True))


def _fit(image: npt.NDArray[np.int16], inside: _Places, rim: _Places, flip: Flip) -> FlipFit:
    axes = _flipped_axes(flip)

    def values(places: _Places) -> npt.NDArray[np.float64]:
        turned = (image.shape[axis] - 1 - p if axis in axes else p for axis, p in enumerate(places))
        return np.asarray(image[tuple(turned)], dtype=np.float64)

    organ = values(inside)
    within, around = (float(hu.clip(*_TISSUE_HU).std()) if hu.size else 0.0 for hu in (organ, values(rim)))
    return FlipFit(flip, float(organ.mean()), float(organ.std()), around / max(within, 1.0))


def _flipped_axes(flip: Flip) -> tuple[int, ...]:
    return () if flip == "none" else tuple(_AXES[axis] for axis in flip)


def _flip_warnings(fits: Sequence[FlipFit]) -> tuple[str, ...]:
    """Return warnings about the first of some fits, which are sorted by edge, sharpest first."""
    best, doubts = fits[0], []
    if best.std_hu > LARGEST_STD_HU or best.edge < _SMALLEST_EDGE or not best.plausible:
        doubts.append(
            f"label flip {best.flip!r}: {best.mean_hu:.0f} +- {best.std_hu:.0f} HU inside, {best.edge:.1f} times that "
            "deviation just outside; this is unlikely to be a pancreas, inspect it before training"
        )
    if len(fits) > 1 and best.edge < _CLEARLY_BETTER * fits[1].edge:
        doubts.append(
            f"label flips {best.flip!r} and {fits[1].flip!r} fit almost equally well; "
            f"used {best.flip!r}, inspect it before training"
        )
    return tuple(doubts)
