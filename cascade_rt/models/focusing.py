"""The focusing module (Eq. 9), after PFNet: finds and removes false positives, finds and adds false negatives."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascade_rt.models.blocks import Norm, conv_block, norm_layer
from cascade_rt.models.localization import Located


def upsample(image: Tensor) -> Tensor:
    """Double height and width, bilinear with aligned corners."""
    return F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=True)


class ContextExploration(nn.Module):
    """Four branches of growing kernel and dilation, each also reading the one before; C channels in and out."""

    KERNELS = (1, 3, 5, 7)
    DILATIONS = (1, 2, 4, 8)

    def __init__(self, channels: int, norm: Norm, context_kernel: int) -> None:
        super().__init__()
        width = channels // len(self.KERNELS)
        self.reduce = nn.ModuleList(conv_block(channels, width, context_kernel, norm) for _ in self.KERNELS)
        self.local = nn.ModuleList(conv_block(width, width, kernel, norm) for kernel in self.KERNELS)
        self.dilated = nn.ModuleList(
            conv_block(width, width, 3, norm, dilation=dilation) for dilation in self.DILATIONS
        )
        self.fuse = conv_block(channels, channels, context_kernel, norm)

    def forward(self, features: Tensor) -> Tensor:
        """Explore the context of `[batch, channel, row, col]`."""
        outputs: list[Tensor] = []
        for reduce, local, dilated in zip(self.reduce, self.local, self.dilated, strict=True):
            reduced = reduce(features)
            outputs.append(dilated(local(reduced + outputs[-1] if outputs else reduced)))
        fused: Tensor = self.fuse(torch.cat(outputs, dim=1))
        return fused


class FocusingModule(nn.Module):
    """Refines the map of the next coarser level with the features of this level.

    The coarser map, up-sampled and squashed to [0, 1], splits this level's features into foreground and background;
    what the foreground holds of distraction is subtracted, what the background holds of tumour is added.
    The paper says softmax; on one channel that is 1 everywhere, so the sigmoid of PFNet it is.
    """

    def __init__(self, channels: int, coarse_channels: int, norm: Norm, context_kernel: int) -> None:
        super().__init__()
        self.coarse = conv_block(coarse_channels, channels, 7, norm)
        self.false_positives = ContextExploration(channels, norm, context_kernel)
        self.false_negatives = ContextExploration(channels, norm, context_kernel)
        self.subtract_weight = nn.Parameter(torch.ones(1))
        self.add_weight = nn.Parameter(torch.ones(1))
        self.after_subtract = nn.Sequential(norm_layer(channels, norm), nn.ReLU(inplace=True))
        self.after_add = nn.Sequential(norm_layer(channels, norm), nn.ReLU(inplace=True))
        self.map = nn.Conv2d(channels, 1, kernel_size=7, padding=3)

    def forward(self, features: Tensor, coarse: Located) -> Located:
        """Focus `[batch, channel, row, col]` with the features and logits of half its resolution."""
        foreground = torch.sigmoid(upsample(coarse.logits))
        false_positives = self.false_positives(foreground * features)
        false_negatives = self.false_negatives((1 - foreground) * features)
        refined = upsample(self.coarse(coarse.features))
        refined = self.after_subtract(refined - self.subtract_weight * false_positives)
        refined = self.after_add(refined + self.add_weight * false_negatives)
        return Located(refined, self.map(refined))
