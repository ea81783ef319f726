"""The convolution block used by both networks."""

import math
from typing import Literal

from torch import nn

Norm = Literal["batch", "instance", "group"]


def conv_block(in_channels: int, out_channels: int, kernel: int, norm: Norm, *, dilation: int = 1) -> nn.Sequential:
    """Build convolution, normalization and ReLU; height and width are preserved.

    The convolution has no bias because the following normalization would cancel it.
    """
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, norm_layer(out_channels, norm), nn.ReLU(inplace=True))


def norm_layer(channels: int, norm: Norm) -> nn.Module:
    """Build the named normalization layer, with learnable scale and shift."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.GroupNorm(math.gcd(8, channels), channels)
