"""The multi-scale U-Net of stage 1 (Eq. 1 to 4), after STAN.

Two parallel encoder branches: one with 3x3 convolutions, one with a 1x1 and a 5x5 path. With w = `base_width`:

    block   branch 1   branch 2   scale
    1       w          2w         1/1
    2       2w         4w         1/2
    3       4w         8w         1/4
    4       8w         16w        1/8
    neck         24w              1/16

Eq. 4 uses a skip at the resolution it decodes to, so C_i on its right-hand side is the map *before* pooling.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cascade_rt.models.blocks import Norm, conv_block

DOWNSCALE = 16
"""Height and width of every input must be multiples of this, because the encoder pools four times by 2."""


class BlockFeatures(NamedTuple):
    """The two maps of one encoder block, before pooling, `[batch, channel, row, col]`."""

    branch1: Tensor
    branch2: Tensor


class EncoderFeatures(NamedTuple):
    """All feature maps of the encoder: four blocks, fine to coarse, and the bottleneck at 1/16."""

    blocks: list[BlockFeatures]
    bottleneck: Tensor


def block_widths(base_width: int) -> tuple[int, int, int, int]:
    """Return the channels of branch 1 in the four blocks; branch 2 has twice as many."""
    return base_width, 2 * base_width, 4 * base_width, 8 * base_width


def bottleneck_width(base_width: int) -> int:
    """Return the channels of the bottleneck: three paths with the width of block 4."""
    return 3 * 8 * base_width


class MultiscaleBlock(nn.Module):
    """One encoder block with both branches, without pooling (Eq. 1 and 2)."""

    def __init__(self, in1: int, in2: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.branch1 = nn.Sequential(conv_block(in1, width, 3, norm), conv_block(width, width, 3, norm))
        self.branch2_small = nn.Sequential(conv_block(in2, width, 1, norm), conv_block(width, width, 3, norm))
        self.branch2_large = nn.Sequential(conv_block(in2, width, 5, norm), conv_block(width, width, 3, norm))

    def forward(self, x1: Tensor, x2: Tensor) -> BlockFeatures:
        """Run both branches on `[batch, in, row, col]` each; they return `width` and `2 * width` channels."""
        return BlockFeatures(self.branch1(x1), torch.cat([self.branch2_small(x2), self.branch2_large(x2)], dim=1))


class MultiscaleEncoder(nn.Module):
    """Four multi-scale blocks and the bottleneck (Eq. 1 to 3)."""

    def __init__(self, base_width: int, norm: Norm, bottleneck: Literal["paper", "stan"]) -> None:
        super().__init__()
        self.bottleneck_kind = bottleneck
        self.blocks = nn.ModuleList()
        in1 = in2 = 1
        for width in block_widths(base_width):
            self.blocks.append(MultiscaleBlock(in1, in2, width, norm))
            in1, in2 = width, 2 * width
        width = in1
        small_in, medium_in = (in1, in2) if bottleneck == "paper" else (in2, in1)
        self.neck_small = nn.Sequential(conv_block(small_in, width, 1, norm), conv_block(width, width, 3, norm))
        self.neck_medium = nn.Sequential(conv_block(medium_in, width, 3, norm), conv_block(width, width, 3, norm))
        self.neck_large = nn.Sequential(conv_block(in2, width, 5, norm), conv_block(width, width, 3, norm))
        self.pool = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> EncoderFeatures:
        """Encode an image `[batch, 1, row, col]`, row and col multiples of 16."""
        x1 = x2 = image
        features = []
        for block in self.blocks:
            maps = block(x1, x2)
            features.append(maps)
            x1, x2 = self.pool(maps.branch1), self.pool(maps.branch2)
        small, medium = (x1, x2) if self.bottleneck_kind == "paper" else (x2, x1)
        neck = torch.cat([self.neck_small(small), self.neck_medium(medium), self.neck_large(x2)], dim=1)
        return EncoderFeatures(features, neck)


class DecoderStep(nn.Module):
    """One decoder step: deconvolution, then the skip of branch 1, then that of branch 2 (Eq. 4)."""

    def __init__(self, in_channels: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, width, kernel_size=2, stride=2)
        self.merge1 = conv_block(2 * width, width, 3, norm)
        self.merge2 = conv_block(3 * width, width, 3, norm)
        nn.init.kaiming_normal_(self.up.weight, nonlinearity="relu")

    def forward(self, coarse: Tensor, skip: BlockFeatures) -> Tensor:
        """Decode `[batch, in, row, col]` to `[batch, width, 2 row, 2 col]`."""
        merged = self.merge1(torch.cat([self.up(coarse), skip.branch1], dim=1))
        decoded: Tensor = self.merge2(torch.cat([merged, skip.branch2], dim=1))
        return decoded


class MultiscaleDecoder(nn.Module):
    """Decoder from the bottleneck, or features derived from it, back to full resolution (Eq. 4)."""

    def __init__(self, base_width: int, norm: Norm, in_channels: int | None = None) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        channels = bottleneck_width(base_width) if in_channels is None else in_channels
        for width in reversed(block_widths(base_width)):
            self.steps.append(DecoderStep(channels, width, norm))
            channels = width

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """Return U_4 to U_1, coarse to fine: 8w, 4w, 2w and w channels at 1/8 to 1/1."""
        decoded = []
        x = features.bottleneck
        for step, skip in zip(self.steps, reversed(features.blocks), strict=True):
            x = step(x, skip)
            decoded.append(x)
        return decoded


class MultiscaleUNet(nn.Module):
    """Stage 1: segments the organ in a whole slice. In Table 3 it also serves as stage 2."""

    def __init__(self, base_width: int, norm: Norm, bottleneck: Literal["paper", "stan"]) -> None:
        super().__init__()
        self.encoder = MultiscaleEncoder(base_width, norm, bottleneck)
        self.decoder = MultiscaleDecoder(base_width, norm)
        self.head = nn.Conv2d(base_width, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits from an image; both are `[batch, 1, row, col]`, row and col multiples of 16."""
        logits: Tensor = self.head(self.decoder(self.encoder(image))[-1])
        return logits
