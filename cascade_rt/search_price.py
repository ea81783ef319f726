"""What a search of less than the whole scan costs and saves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cascade_rt.agreement import MaskAgreement, mask_agreement
from cascade_rt.cascade import Cascade
from cascade_rt.labels import LOWEST_LABEL, Target
from cascade_rt.metrics import dice
from cascade_rt.search import SearchOptions, SearchRecord
from cascade_rt.volume import Volume


@dataclass(frozen=True, slots=True)
class SearchPrice:
    """A mask that was searched for in part of a scan, beside that of the whole search."""

    case: str
    dice: Mapping[Target, float]
    """Dice between the two masks; 1 where neither has the target."""
    agreement: MaskAgreement
    search: SearchRecord
    whole_seconds: float
    """Of the whole search, without reading and writing."""
    seconds: float
    """Of the other, without reading and writing."""

    def to_json(self) -> dict[str, Any]:
        """The price as plain values."""
        box = self.search.body_box
        return {
            "case": self.case,
            "dice": dict(self.dice),
            "voxels_different": self.agreement.different,
            "voxels": self.agreement.voxels,
            "first_every": self.search.first_every,
            "slices_left_out": self.search.slices_left_out,
            "body_box": None if box is None else list(box.size),
            "seconds": {"whole": self.whole_seconds, "search": self.seconds},
        }


def price_of_search(cascade: Cascade, volume: Volume, search: SearchOptions) -> SearchPrice:
    """Segment a scan twice, with the whole search and with another, and compare the masks.

    Raises:
        InputError: A slice is larger than the networks take.
        EngineError: An engine returned something that is not a number.
    """
    whole, less = cascade.run(volume), cascade.run(volume, search=search)
    return SearchPrice(
        case=volume.name,
        dice={target: dice(less.mask >= low, whole.mask >= low) for target, low in LOWEST_LABEL.items()},
        agreement=mask_agreement(less.mask, whole.mask),
        search=less.search,
        whole_seconds=whole.wall_s,
        seconds=less.wall_s,
    )
