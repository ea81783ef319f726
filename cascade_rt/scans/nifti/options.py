"""User-supplied facts that a file does not state."""

from dataclasses import dataclass
from numbers import Integral

from cascade_rt.common.arguments import check_argument
from cascade_rt.errors import UsageError

MAX_VOXELS = 1 << 31
"""Default limit: about 8000 slices of 512 x 512, while a whole-body scan has 2000."""


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How to read a scan file. By default nothing is guessed: an ambiguous file is refused."""

    volume: int | None = None
    """Zero-based index of the volume of a 4D file to read. If None, a file with several volumes is refused."""
    assume_orientation: str | None = None
    """Directions of the axes (i, j, k) of a file without qform and sform, such as `LPS`. If None, it is refused."""
    assume_hu: bool = False
    """Accept the values as Hounsfield units without judging them."""
    hu_offset: int = 0
    """Added to every voxel, such as -1024 for files that store HU + 1024."""
    max_voxels: int = MAX_VOXELS
    """Maximum number of voxels. Larger images are refused."""
    strict: bool = False
    """Refuse files whose qform and sform place the scan more than 5 mm apart."""
    scattered: bool = False
    """The slices are unrelated to one another, so nothing is judged across them."""
    series: str | None = None
    """UID or number of the CT series of a DICOM study to read. If None, a study with several series is refused."""

    def __post_init__(self) -> None:
        if self.volume is not None:
            check_argument("volume", self.volume, Integral, "an integer or None")
        if self.series is not None:
            check_argument("series", self.series, str, "the UID or the number of a series, as a string, or None")
        if self.assume_orientation is not None:
            check_argument("assume_orientation", self.assume_orientation, str, "three letters such as LPS, or None")
        for name in ("hu_offset", "max_voxels"):
            check_argument(name, getattr(self, name), Integral, "an integer")
        for name in ("assume_hu", "strict", "scattered"):
            check_argument(name, getattr(self, name), bool, "True or False")
        if self.volume is not None and self.volume < 0:
            raise UsageError(f"volume: must be at least 0, got {self.volume}")
        if self.max_voxels < 1:
            raise UsageError(f"max_voxels: must be at least 1, got {self.max_voxels}")
        axes = self.assume_orientation
        if axes is not None and {frozenset(pair) & frozenset(axes) for pair in ("LR", "AP", "IS")} != {
            frozenset(letter) for letter in axes
        }:
            raise UsageError(f"assume_orientation: {axes!r} is invalid; use three directions such as LPS or RAS")


DEFAULT_SCAN_OPTIONS = ScanOptions()
"""Guess nothing, allow nothing."""
