"""Choose which islands (connected components) of a mask are kept: all or the largest, above a minimum volume.

This is decided once per scan, after both stages, so that every engine keeps the same islands
(docs/decisions/0021-islands.md).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade_rt.common.pixel_runs import connected, erase, find_runs
from cascade_rt.config import CascadeConfig, Islands


@dataclass(frozen=True, slots=True)
class IslandRecord:
    """What happened to the islands of a mask: 26-connected components of pancreas and tumor together."""

    setting: Islands = "all"
    """As in `CascadeConfig`."""
    least_ml: float = 0.0
    """As in `CascadeConfig`."""
    components: int | None = None
    """Number of islands found; None if slices are independent, so that components across slices mean nothing."""
    kept: int | None = None
    """Number of islands kept; None if `components` is None."""
    voxels_dropped: int = 0
    ml_dropped: float = 0.0

    @property
    def nothing_left(self) -> bool:
        """Whether islands were found and all of them were dropped."""
        return bool(self.components) and self.kept == 0


def keep_islands(mask: npt.NDArray[np.uint8], config: CascadeConfig, voxel_volume_ml: float) -> IslandRecord:
    """Set the islands of a mask that the bundle does not keep to 0.

    Args:
        mask: `[z, row, col]`, labels; modified in place.
        config: Which islands are kept.
        voxel_volume_ml: Volume of one voxel, ml.
    """
    runs = find_runs(mask, lambda labels: labels > 0)
    count, island = connected(runs)
    voxels = np.bincount(island, weights=runs.lengths, minlength=count)
    kept = voxels * voxel_volume_ml >= config.least_island_ml
    # An island that reaches the first or last slice may continue outside the scan and be large.
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
