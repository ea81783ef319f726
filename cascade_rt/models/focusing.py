"""The focusing module (Eq. 9), after PFNet: removes false positives and adds false negatives that it discovers."""

from typing import Literal

import torch
from torch import Tensor, nn

from cascade_rt.config import Interference
from cascade_rt.models.blocks import Norm, conv_block, norm_layer
from cascade_rt.models.localization import Located


def upsample(image: Tensor) -> Tensor:
    """Upsample `[batch, channel, row, col]` by 2, bilinearly with aligned corners.

    `F.interpolate` and ONNX's Resize compute the same, but round pixel positions differently, and an error of 1e-5
    pixels here causes an error of 1e-4 in a probability of the trained network. This explicit form computes no
    positions.
    """
    return _double(_double(image, axis=2), axis=3)


def split(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute sigmoid(x) and 1 - sigmoid(x) of logits `[batch, 1, row, col]`, both with full relative precision.

    Computed as a softmax of two channels, because ONNX Runtime's Sigmoid has an absolute error of 1e-7 at any value. At
    a value of 4e-4, the following normalization amplifies that to 1e-4 in a probability.
    """
    both = torch.softmax(torch.cat([logits, torch.zeros_like(logits)], dim=1), dim=1)
    return both[:, :1], both[:, 1:]


def _double(image: Tensor, axis: int) -> Tensor:
    """Double one axis: pixel i of n becomes two pixels.

    These are interpolated towards the previous and the next pixel with weights i / (2n - 1) and (n - 1 - i) / (2n - 1).
    """
    length = image.shape[axis]
    steps = torch.arange(length, dtype=image.dtype, device=image.device) / (2 * length - 1)
    toward_previous = steps.reshape(-1, 1) if axis == 2 else steps
    toward_next = toward_previous.flip(0)
    previous = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, length - 1)], dim=axis)
    following = torch.cat([image.narrow(axis, 1, length - 1), image.narrow(axis, length - 1, 1)], dim=axis)
    first = image + (previous - image) * toward_previous
    second = image + (following - image) * toward_next
    return torch.stack([first, second], dim=axis + 1).flatten(axis, axis + 1)


class ContextExploration(nn.Module):
    """Four branches with growing kernel and dilation, each also fed by the previous one; C channels in and out."""

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


class Discovery(nn.Module):
    """Discovers interference in one part of the features, and subtracts it from or adds it to the refined map."""

    def __init__(self, channels: int, norm: Norm, context_kernel: int, *, sign: Literal[-1, 1]) -> None:
        super().__init__()
        self.sign = sign
        self.explore = ContextExploration(channels, norm, context_kernel)
        self.weight = nn.Parameter(torch.ones(1))
        self.after = nn.Sequential(norm_layer(channels, norm), nn.ReLU(inplace=True))

    def forward(self, refined: Tensor, part: Tensor) -> Tensor:
        """Correct `refined` by the interference found in `part`; both are `[batch, channel, row, col]`."""
        corrected: Tensor = self.after(refined + self.sign * self.weight * self.explore(part))
        return corrected


class FocusingModule(nn.Module):
    """Refines the map of the next coarser level with the features of this level.

    The coarser map, upsampled and mapped to [0, 1], splits this level's features into foreground and background. False
    positives found in the foreground are subtracted, and false negatives found in the background are added. Figure 10
    omits one or both of these. The paper says softmax, but a softmax over one channel is 1 everywhere, so the sigmoid
    of PFNet is used.
    """

    def __init__(
        self, channels: int, coarse_channels: int, norm: Norm, context_kernel: int, interference: Interference = "both"
    ) -> None:
        super().__init__()
        self.coarse = conv_block(coarse_channels, channels, 7, norm)
        self.false_positives = self.false_negatives = self.after = None
        if interference in ("both", "fpd"):
            self.false_positives = Discovery(channels, norm, context_kernel, sign=-1)
        if interference in ("both", "fnd"):
            self.false_negatives = Discovery(channels, norm, context_kernel, sign=1)
        if interference == "none":
            self.after = nn.Sequential(norm_layer(channels, norm), nn.ReLU(inplace=True))
        self.map = nn.Conv2d(channels, 1, kernel_size=7, padding=3)

    def forward(self, features: Tensor | None, coarse: Located) -> Located:
        """Refine the map of half the resolution.

        Args:
            features: Features of this level, `[batch, channel, row, col]`; None if no interference is discovered.
            coarse: Output of the next coarser level.

        Returns:
            Features and logits at the resolution of this level.
        """
        refined = upsample(self.coarse(coarse.features))
        if features is not None:
            foreground, background = split(upsample(coarse.logits))
            if self.false_positives is not None:
                refined = self.false_positives(refined, foreground * features)
            if self.false_negatives is not None:
                refined = self.false_negatives(refined, background * features)
        if self.after is not None:
            refined = self.after(refined)
        return Located(refined, self.map(refined))
