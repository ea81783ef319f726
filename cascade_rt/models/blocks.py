"""The convolution block that both networks are made of."""

import math
from typing import Literal

from torch import nn

Norm = Literal["batch", "instance", "group"]


def conv_block(in_channels: int, out_channels: int, kernel: int, norm: Norm, *, dilation: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU; keeps height and width.

    The convolution has no bias of its own: the normalisation behind it would remove it.
    """
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, norm_layer(out_channels, norm), nn.ReLU(inplace=True))


def norm_layer(channels: int, norm: Norm) -> nn.Module:
    """The normalisation layer of a name, with learnable scale and shift."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.GroupNorm(math.gcd(8, channels), channels)
