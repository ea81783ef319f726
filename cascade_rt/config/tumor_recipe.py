"""Parameters of synthetic tumors: size, contrast, edge and secondary signs, with their sources."""

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
    """Appearance of synthetic tumors. Pairs are minimum and maximum of a uniform distribution.

    Sizes follow 59 manually labeled lesions. Contrast follows radiological descriptions of pancreatic adenocarcinoma in
    the portal venous phase: mostly darker than the gland, about one in ten isodense, two thirds in the head,
    ill-defined, with a dilated duct (above 3 mm) and an atrophic gland upstream.
    """

    median_diameter_mm: float = 23.0
    """Median diameter of the sphere of equal volume."""
    diameter_spread: float = 0.41
    """Standard deviation of the log diameter: nine in ten tumors lie between 12 and 45 mm."""
    head_share: float = 0.66
    """Fraction of tumors in the third of the gland on the patient's right; the others lie in the body and tail."""
    darker_hu: tuple[float, float] = (10.0, 60.0)
    """How much darker than the gland the tumor is, in HU, if it is neither isodense nor brighter."""
    equal_share: float = 0.12
    equal_hu: tuple[float, float] = (-6.0, 6.0)
    """Difference of isodense tumors from the gland, in HU; `equal_share` is their fraction."""
    brighter_share: float = 0.08
    """Fraction of tumors brighter than the gland, such as neuroendocrine tumors."""
    brighter_hu: tuple[float, float] = (15.0, 60.0)
    mottle_hu: tuple[float, float] = (0.0, 12.0)
    """Standard deviation in HU of the texture inside the tumor, which varies over a few mm, on top of the scan's
    noise."""
    edge_mm: tuple[float, float] = (0.5, 5.0)
    """Width of the transition from tumor to gland: sharp to ill-defined."""
    lobed_share: float = 0.4
    """Fraction of tumors with two or three lobes; the others are a single deformed ellipsoid."""
    necrosis_share: float = 0.2
    """Fraction of tumors with a darker core."""
    push: tuple[float, float] = (0.0, 0.35)
    """How far the surroundings are displaced, as a fraction of the radius."""
    overhang: tuple[float, float] = (0.0, 0.6)
    """How far the tumor extends beyond the gland, as a fraction of its radius."""
    duct_share: float = 0.5
    """Fraction of tumors with a dilated pancreatic duct between them and the tail."""
    duct_mm: tuple[float, float] = (2.5, 8.0)
    """Diameter of the dilated duct."""
    atrophy_share: float = 0.4
    """Fraction of tumors with an atrophic (thinner) gland between them and the tail."""
    atrophy_mm: tuple[float, float] = (1.0, 4.0)
    """Thickness lost by the gland on each side."""

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"train.tumor_recipe.{name} must lie between 0 and 1, got {getattr(self, name)!r}")
        if self.equal_share + self.brighter_share > 1:
            raise UsageError("train.tumor_recipe: equal_share + brighter_share must not exceed 1")
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
