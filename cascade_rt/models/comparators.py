"""The networks that the paper compares with, as far as MONAI provides them: one image in, one logit map out.

With w = `base_width`, and the widths of the five levels from fine to coarse:

    name              MONAI class         description
    unet              BasicUNet           the plain U-Net, row U of the paper's Table 3: w, 2w, 4w, 8w, 16w
    unet_plus_plus    BasicUNetPlusPlus   nested skips, the finest output: w, 2w, 4w, 8w, 16w
    attention_unet    AttentionUnet       attention-gated skips, strided convolutions: w, 2w, 4w, 8w, 16w
    residual_unet     UNet                residual units of two convolutions: w at 1/2, 2w, 4w, then 8w and 16w at 1/16
    dynamic_unet      DynUNet             what nnU-Net configures in 2D with four poolings: w to 16w, at most 512
    dense_unet        DenseNet            its encoder with a plain decoder, see `DenseUNet`

Only the networks are implemented, not the preprocessing, training and post-processing of the original publications.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cascade_rt.common.packages import import_package
from cascade_rt.config import COMPARATORS, Comparator
from cascade_rt.errors import UsageError
from cascade_rt.models.blocks import Norm, conv_block

NORMS: Mapping[Comparator, tuple[Norm, ...]] = {
    "unet": ("batch", "instance", "group"),
    "unet_plus_plus": ("batch", "instance", "group"),
    # Fixed by MONAI: batch normalization, and instance normalization where a gated skip is merged.
    "attention_unet": ("batch",),
    # MONAI normalizes the single output channel, which cannot be divided into groups.
    "residual_unet": ("batch", "instance"),
    "dense_unet": ("batch", "instance", "group"),
    "dynamic_unet": ("batch", "instance", "group"),
}
"""Normalizations supported by each network."""

_NNUNET_WIDEST = 512


def build_comparator(name: Comparator, base_width: int, norm: Norm) -> nn.Module:
    """Build a network from windowed image or crop `[batch, 1, row, col]` to logits of the same shape.

    Args:
        name: Name of the network.
        base_width: Channels of its finest level, a multiple of 8.
        norm: Normalization after each convolution.

    Returns:
        The network with random weights. Row and col of its input must be multiples of 16 and at least 64.

    Raises:
        UsageError: The network does not exist or does not support this normalization.
        BackendUnavailableError: MONAI is not installed.
    """
    if name not in COMPARATORS:
        raise UsageError(f"comparator must be one of {', '.join(COMPARATORS)}, got {name!r}")
    if norm not in NORMS[name]:
        raise UsageError(f"cascade.norm of {name} must be {' or '.join(NORMS[name])}, got {norm!r}")
    nets = import_package("monai.networks.nets", needed_by=f"network {name!r}", extra="comparators")
    if name == "dense_unet":
        return DenseUNet(nets, base_width, norm)
    widths = [base_width * 2**level for level in range(5)]
    maps: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}
    layers: dict[str, Any] = {"act": "relu", "norm": _norm(norm, base_width), "bias": False}
    network: nn.Module
    if name == "unet":
        network = nets.BasicUNet(**maps, **layers, features=(*widths, base_width))
    elif name == "unet_plus_plus":
        network = FinestOutput(nets.BasicUNetPlusPlus(**maps, **layers, features=(*widths, base_width)))
    elif name == "attention_unet":
        network = nets.AttentionUnet(**maps, channels=widths, strides=(2, 2, 2, 2))
    elif name == "residual_unet":
        network = nets.UNet(**maps, channels=widths, strides=(2, 2, 2, 2), num_res_units=2, norm=layers["norm"])
    else:
        network = _dynamic_unet(nets, widths, layers["norm"])
    _drop_padding(network)
    return network


class FinestOutput(nn.Module):
    """MONAI's U-Net++ without deep supervision, with its single-element output list unpacked."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # MONAI computes the three coarser outputs anyway and discards them, so their heads would never be trained.
        for head in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
            setattr(network, head, nn.Identity())
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits from a windowed image; both are `[batch, 1, row, col]`."""
        logits: Tensor = self.network(image)[-1]
        return logits


class DenseUNet(nn.Module):
    """The encoder of DenseNet-121 up to its third block, and a plain decoder.

    The closest match to the Dense-UNets of the literature that public code allows: dense blocks of 6, 12 and 24 layers,
    with w/2 channels added by each layer; skips of w, 4w and 8w channels at 1/2, 1/4 and 1/8; and 16w channels at 1/16.
    It has no fourth block, which would require sides that are multiples of 32, no skip at full resolution and no
    pretrained weights.
    """

    SKIPS = ("relu0", "denseblock1", "denseblock2")

    def __init__(self, nets: Any, base_width: int, norm: Norm) -> None:
        super().__init__()
        growth = base_width // 2
        dense = nets.DenseNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            init_features=base_width,
            growth_rate=growth,
            block_config=(6, 12, 24),
            norm=_norm(norm, growth),
        )
        self.encoder: nn.Sequential = dense.features
        self.steps = nn.ModuleList()
        channels = 16 * base_width
        for skip, width in ((8, 8), (4, 4), (1, 1), (0, 1)):
            self.steps.append(DenseStep(channels, skip * base_width, width * base_width, norm))
            channels = width * base_width
        self.head = nn.Conv2d(base_width, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits from a windowed image; both are `[batch, 1, row, col]`, row and col multiples of 16."""
        x, skips = image, []
        for name, layer in self.encoder.named_children():
            x = layer(x)
            if name in self.SKIPS:
                skips.append(x)
        x = torch.relu(x)
        for step in self.steps:
            x = step(x, skips.pop() if skips else None)
        logits: Tensor = self.head(x)
        return logits


class DenseStep(nn.Module):
    """One decoder step of `DenseUNet`: deconvolution, concatenation of the skip if any, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, width, kernel_size=2, stride=2)
        self.merge = nn.Sequential(conv_block(width + skip_channels, width, 3, norm), conv_block(width, width, 3, norm))

    def forward(self, coarse: Tensor, skip: Tensor | None) -> Tensor:
        """Decode `[batch, in, row, col]` to `[batch, width, 2 row, 2 col]`."""
        raised = self.up(coarse)
        merged: Tensor = self.merge(raised if skip is None else torch.cat([raised, skip], dim=1))
        return merged


def _dynamic_unet(nets: Any, widths: list[int], norm: tuple[str, dict[str, Any]]) -> nn.Module:
    network = nets.DynUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        kernel_size=(3, 3, 3, 3, 3),
        strides=(1, 2, 2, 2, 2),
        upsample_kernel_size=(2, 2, 2, 2),
        filters=[min(width, _NNUNET_WIDEST) for width in widths],
        norm_name=norm,
        trans_bias=True,
    )
    # DynUNet registers each block twice, which safetensors cannot store. Without deep supervision, these two modules
    # are the whole network.
    return nn.Sequential(network.skip_layers, network.output_block)


def _drop_padding(network: nn.Module) -> None:
    """Disable MONAI's padding to odd sides in decoder steps: sides are never odd, and TensorRT lacks replicate pad."""
    modules: Iterable[Any] = network.modules()
    for module in modules:
        if hasattr(module, "is_pad"):
            module.is_pad = False


def _norm(norm: Norm, channels: int) -> tuple[str, dict[str, Any]]:
    """Return MONAI's name and arguments for a normalization whose layers all have a multiple of `channels` channels."""
    if norm == "group":
        return "group", {"num_groups": math.gcd(8, channels)}
    return norm, {"affine": True}
