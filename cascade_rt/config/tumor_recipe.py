"""How synthetic tumors are made: sizes, contrast, edge and companions, each with its source."""

from dataclasses import dataclass
from math import isfinite

from cascade_rt.errors import UsageError

_SHARES = (
    "head_share",
    "equal_share",
    "brighter_share",
    "lobed_share",
    "duct_share",
    "atrophy_share",
    "necrosis_share",
)
_RANGES = (
    "darker_hu",
    "equal_hu",
    "brighter_hu",
    "mottle_hu",
    "edge_mm",
    "push",
    "overhang",
    "duct_mm",
    "atrophy_mm",
)


@dataclass(frozen=True, slots=True)
class TumorRecipe:
    """What synthetic tumors look like. Pairs are the least and the most; values between are equally likely.

    Sizes are those of 59 lesions with manual labels. Contrast is that of pancreatic adenocarcinoma in the portal venous
    phase as radiology describes it: mostly darker than the gland, about one in ten as bright, two thirds in the head,
    ill-defined, with a dilated duct (above 3 mm) and a thinner gland upstream.
    """

    median_diameter_mm: float = 23.0
    """Of the ball of equal volume."""
    diameter_spread: float = 0.41
    """Standard deviation of the logarithm of the diameter: nine in ten lie between 12 and 45 mm."""
    head_share: float = 0.66
    """Tumors in the third of the gland on the patient's right; the others lie in body and tail."""
    darker_hu: tuple[float, float] = (10.0, 60.0)
    """How much darker than the gland, where they are neither of the next two."""
    equal_share: float = 0.12
    equal_hu: tuple[float, float] = (-6.0, 6.0)
    """Difference from the gland of those that are as bright."""
    brighter_share: float = 0.08
    """Such as neuroendocrine ones."""
    brighter_hu: tuple[float, float] = (15.0, 60.0)
    mottle_hu: tuple[float, float] = (0.0, 12.0)
    """Standard deviation of what varies inside over some millimetres, beside the noise of the scan."""
    edge_mm: tuple[float, float] = (0.5, 5.0)
    """Width over which tumor turns into gland: sharp to ill-defined."""
    lobed_share: float = 0.4
    """Tumors of two or three lobes; the others are one deformed ellipsoid."""
    necrosis_share: float = 0.2
    """Tumors with a darker core."""
    push: tuple[float, float] = (0.0, 0.35)
    """How far the surroundings are pushed away, as a share of the radius."""
    overhang: tuple[float, float] = (0.0, 0.6)
    """How far a tumor grows out of the gland, as a share of its radius."""
    duct_share: float = 0.5
    """Tumors with a dilated pancreatic duct between them and the tail."""
    duct_mm: tuple[float, float] = (2.5, 8.0)
    """Its diameter."""
    atrophy_share: float = 0.4
    """Tumors with a gland that has become thinner between them and the tail."""
    atrophy_mm: tuple[float, float] = (1.0, 4.0)
    """What the gland has lost on each side."""

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"train.tumor_recipe.{name} must lie between 0 and 1, got {getattr(self, name)!r}")
        if self.equal_share + self.brighter_share > 1:
            raise UsageError("train.tumor_recipe: equal_share and brighter_share together must not be above 1")
        for name in _RANGES:
            low, high = getattr(self, name)
            if not (isfinite(low) and isfinite(high) and low <= high):
                raise UsageError(
                    f"train.tumor_recipe.{name} must be two numbers, the lower one first, got {(low, high)}"
                )
        for name in ("median_diameter_mm", "diameter_spread"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise UsageError(f"train.tumor_recipe.{name} must be a positive number, got {value!r}")
