"""The HU window: the one place where Hounsfield units become the input of a network."""

import torch
from torch import Tensor


def apply_window(hu: Tensor, window_hu: tuple[float, float]) -> Tensor:
    """Map Hounsfield units to [0, 1]: the lower end of the window and below to 0, the upper end and above to 1."""
    low, high = window_hu
    return torch.clamp((hu - low) / (high - low), 0.0, 1.0)
