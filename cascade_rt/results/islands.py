"""What is kept of a mask that falls into pieces: all of it, or the largest piece; and how large a piece has to be.

Decided once for each scan, behind both stages, so that every engine keeps the same (docs/decisions/0021-islands.md).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade_rt.common.pixel_runs import connected, erase, find_runs
from cascade_rt.config import CascadeConfig, Islands


@dataclass(frozen=True, slots=True)
class IslandRecord:
    """What became of the islands of a mask: pieces of pancreas and tumor together, joined by a corner or more."""

    setting: Islands = "all"
    """As in `CascadeConfig`."""
    least_ml: float = 0.0
    """As in `CascadeConfig`."""
    components: int | None = None
    """Islands that were found; None where slices are independent of one another, and nothing is judged across them."""
    kept: int | None = None
    """Islands that are left; None where `components` is."""
    voxels_dropped: int = 0
    ml_dropped: float = 0.0

    @property
    def nothing_left(self) -> bool:
        """Whether something was found and all of it was dropped."""
        return bool(self.components) and self.kept == 0


def keep_islands(mask: npt.NDArray[np.uint8], config: CascadeConfig, voxel_volume_ml: float) -> IslandRecord:
    """Set the islands of a mask to 0 that a bundle does not keep.

    Args:
        mask: `[z, row, col]`, labels; changed in place.
        config: Which islands are kept.
        voxel_volume_ml: Volume of one voxel.
    """
    runs = find_runs(mask, lambda labels: labels > 0)
    count, island = connected(runs)
    voxels = np.bincount(island, weights=runs.lengths, minlength=count)
    kept = voxels * voxel_volume_ml >= config.least_island_ml
    # What reaches the first or last slice goes on outside the scan, and may be large.
    kept[island[np.isin(runs.slices, (0, len(mask) - 1))]] = True
    if config.islands == "largest" and count:
        kept &= np.arange(count) == np.argmax(voxels)
    erase(mask, runs[~kept[island]])
    dropped = int(voxels[~kept].sum())
    return IslandRecord(
        setting=config.islands,
        least_ml=config.least_island_ml,
        components=count,
        kept=int(kept.sum()),
        voxels_dropped=dropped,
        ml_dropped=dropped * voxel_volume_ml,
    )
