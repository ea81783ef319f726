"""Stage 2: segments the tumor in the salient crop of the organ.

    encoder -> five channel reductions -> localization at 1/16 -> focusing at 1/8, 1/4, 1/2, 1/1

With w = `base_width`, the reductions output 8w, 4w, 2w, w and w/2 channels, coarse to fine.
"""

from itertools import pairwise, zip_longest
from typing import Literal

import torch
from torch import Tensor, nn

from cascade_rt.config import Interference
from cascade_rt.models.blocks import Norm, conv_block
from cascade_rt.models.focusing import FocusingModule
from cascade_rt.models.localization import LocalizationModule
from cascade_rt.models.multiscale_unet import MultiscaleDecoder, MultiscaleEncoder, block_widths, bottleneck_width


class TumorNet(nn.Module):
    """The stage-2 network with its five outputs."""

    def __init__(
        self,
        base_width: int,
        norm: Norm,
        bottleneck: Literal["paper", "stan"],
        features: Literal["encoder", "decoder"],
        context_kernel: int,
        interference: Interference = "both",
        min_channels: int = 4,
    ) -> None:
        super().__init__()
        # Without interference, the focusing modules do not use features of the finer levels.
        self.reads_finer_levels = interference != "none"
        decodes = features == "decoder" and self.reads_finer_levels
        self.encoder = MultiscaleEncoder(base_width, norm, bottleneck)
        self.decoder = MultiscaleDecoder(base_width, norm) if decodes else None
        coarse_to_fine = tuple(reversed(block_widths(base_width)))
        per_block = 1 if features == "decoder" else 3
        level_channels = [bottleneck_width(base_width)]
        if self.reads_finer_levels:
            level_channels += [per_block * width for width in coarse_to_fine]
        reduced_channels = (
            coarse_to_fine[0],
            *(max(width, min_channels) for width in (*coarse_to_fine[1:], base_width // 2)),
        )
        self.reductions = nn.ModuleList(
            conv_block(channels, reduced, 3, norm)
            for channels, reduced in zip(level_channels, reduced_channels, strict=False)
        )
        self.localization = LocalizationModule(reduced_channels[0])
        self.focusing = nn.ModuleList(
            FocusingModule(fine, coarse, norm, context_kernel, interference)
            for coarse, fine in pairwise(reduced_channels)
        )

    def forward(self, salient: Tensor) -> list[Tensor]:
        """Compute tumor logit maps from a salient crop `[batch, 1, row, col]`, row and col multiples of 16.

        Returns:
            Five maps, coarse to fine: localization at 1/16, focusing at 1/8, 1/4, 1/2 and 1/1. The last is the
            prediction.
        """
        coarsest, *finer = (reduce(level) for reduce, level in zip(self.reductions, self._levels(salient), strict=True))
        located = self.localization(coarsest)
        outputs = [located.logits]
        for focus, level in zip_longest(self.focusing, finer):
            located = focus(level, located)
            outputs.append(located.logits)
        return outputs

    def _levels(self, salient: Tensor) -> list[Tensor]:
        """Return the feature maps, coarse to fine, before the channel reduction."""
        features = self.encoder(salient)
        if not self.reads_finer_levels:
            return [features.bottleneck]
        if self.decoder is not None:
            return [features.bottleneck, *self.decoder(features)]
        return [features.bottleneck, *(torch.cat(block, dim=1) for block in reversed(features.blocks))]
