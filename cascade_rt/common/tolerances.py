"""How far an engine may differ from PyTorch: one table, by purpose and precision.

parity     an exported graph on random inputs, when it is exported
self-test  an engine on the golden case, whenever it is opened
gate       the masks of the whole cascade on calibration slices, on export and in `verify`
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cascade_rt.common.tensors import EnginePrecision


@dataclass(frozen=True, slots=True)
class Limits:
    """How far results may differ from those of PyTorch. What is not limited may differ by any amount."""

    max_error: float = math.inf
    """Largest difference of any value, such as the probability of a pixel."""
    mean_error: float = math.inf
    """Mean difference of the values."""
    least_dice: float = 0.0
    """Minimum Dice between the masks of both, over all slices together. Applies to the organ and to the tumor."""
    slot_error: float = math.inf
    """Largest difference between the outputs for one input at different positions of a batch."""


PARITY_LIMITS = Limits(max_error=1e-4)
"""Of float32 graphs."""

_REDUCED_PRECISION = Limits(max_error=1.0, mean_error=2e-2)
"""Rounding may shift single probabilities a lot where the network is steep, but shifts the mean only a little."""
SELF_TEST_LIMITS: Mapping[EnginePrecision, Limits] = {
    "fp32": Limits(max_error=1e-3, mean_error=1e-4),
    "fp16": _REDUCED_PRECISION,
    "bf16": _REDUCED_PRECISION,
}

GATE_LIMITS: Mapping[EnginePrecision, Limits] = {
    "fp32": Limits(max_error=1e-3, mean_error=1e-6, least_dice=0.999, slot_error=1e-4),
    # Rounding moves single probabilities as far as the network is steep there. What counts are the masks.
    "fp16": Limits(max_error=1.0, mean_error=1e-3, least_dice=0.999, slot_error=1e-2),
    "bf16": Limits(max_error=1.0, mean_error=1e-3, least_dice=0.995, slot_error=1e-1),
}

LEAST_HALF_SHARE = 0.95
"""Minimum share of the work of convolutions that an FP16 engine does in half precision."""
EARLY_CONVOLUTIONS_SHARE = 0.9 * (1 - LEAST_HALF_SHARE)
"""Share of that work that early convolutions may keep in float32: most of what an engine may."""
