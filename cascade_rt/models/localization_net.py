"""A multi-scale U-Net with non-local localization at its bottleneck: the row M-P-T-L of Table 3."""

from typing import Literal

from torch import Tensor, nn

from cascade_rt.models.blocks import Norm, conv_block
from cascade_rt.models.localization import LocalizationModule
from cascade_rt.models.multiscale_unet import MultiscaleDecoder, MultiscaleEncoder, bottleneck_width


class LocalizationUNet(nn.Module):
    """Encoder, channel reduction, localization, followed by the decoder of the multi-scale U-Net."""

    def __init__(self, base_width: int, norm: Norm, bottleneck: Literal["paper", "stan"]) -> None:
        super().__init__()
        reduced = 8 * base_width
        self.encoder = MultiscaleEncoder(base_width, norm, bottleneck)
        self.reduction = conv_block(bottleneck_width(base_width), reduced, 3, norm)
        self.localization = LocalizationModule(reduced)
        self.decoder = MultiscaleDecoder(base_width, norm, in_channels=reduced)
        self.head = nn.Conv2d(base_width, 1, kernel_size=1)

    def forward(self, salient: Tensor) -> list[Tensor]:
        """Compute logit maps from a salient crop `[batch, 1, row, col]`, row and col multiples of 16.

        Returns:
            Two logit maps: at 1/16 and at 1/1.
        """
        features = self.encoder(salient)
        located = self.localization(self.reduction(features.bottleneck))
        decoded = self.decoder(features._replace(bottleneck=located.features))
        return [located.logits, self.head(decoded[-1])]
