"""What networks of random weights can be held to: their probabilities lie around 0.5, where roundings move the mask."""

from dataclasses import replace

from cascade_rt.common.tolerances import GATE_LIMITS
from cascade_rt_export.calibration import Calibration, phantom_calibration

RANDOM_WEIGHTS = {"fp32": GATE_LIMITS["fp32"], "fp16": replace(GATE_LIMITS["fp16"], least_dice=0.9)}


def small_calibration() -> Calibration:
    """Slices of phantoms that take seconds, not minutes."""
    return phantom_calibration((6, 96, 96))


def one_phantom() -> Calibration:
    """Slices of a single phantom, where what is exported matters and not how well it was calibrated."""
    calibration = small_calibration()
    return replace(calibration, scans=calibration.scans[:1])
