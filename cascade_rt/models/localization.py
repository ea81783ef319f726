"""The non-local localization module (Eq. 5 to 8), after PFNet's positioning module."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Located(NamedTuple):
    """A feature map and the one-channel logit map computed from it, `[batch, channel, row, col]`."""

    features: Tensor
    logits: Tensor


class ChannelAttention(nn.Module):
    """Channel self-attention: each channel becomes a mixture of similar channels (Eq. 5 and 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1))

    def attention(self, features: Tensor) -> Tensor:
        """Compute the row-wise softmax of the channel products: `[batch, channel, channel]`, each row sums to 1.

        Always in float32, because each product sums over all positions.
        """
        with torch.autocast(features.device.type, enabled=False):
            flat = features.flatten(2).float()
            return torch.softmax(flat @ flat.transpose(1, 2), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Compute gamma * (attention x features) + features, `[batch, channel, row, col]`."""
        mixed = self.attention(features).to(features.dtype) @ features.flatten(2)
        return self.gamma * mixed.view_as(features) + features


class SpatialAttention(nn.Module):
    """Spatial self-attention: each position becomes a mixture of similar positions (Eq. 7 and 8)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, kernel_size=1)
        self.key = nn.Conv2d(channels, channels // 8, kernel_size=1)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.ones(1))

    def attention(self, features: Tensor) -> Tensor:
        """Compute softmax over j of query_i . key_j: `[batch, i, j]` over positions, rows sum to 1; in float32."""
        query, key = self.query(features).flatten(2), self.key(features).flatten(2)
        with torch.autocast(features.device.type, enabled=False):
            return torch.softmax(query.float().transpose(1, 2) @ key.float(), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Compute gamma * (value x attention^T) + features, `[batch, channel, row, col]`."""
        value = self.value(features).flatten(2)
        mixed = value @ self.attention(features).to(value.dtype).transpose(1, 2)
        attended: Tensor = self.gamma * mixed.view_as(features) + features
        return attended


class LocalizationModule(nn.Module):
    """Channel attention, spatial attention, and an initial coarse tumor map at 1/16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention()
        self.spatial = SpatialAttention(channels)
        self.map = nn.Conv2d(channels, 1, kernel_size=7, padding=3)

    def forward(self, features: Tensor) -> Located:
        """Localize the tumor in features `[batch, channel, row, col]`."""
        attended = self.spatial(self.channel(features))
        return Located(attended, self.map(attended))
