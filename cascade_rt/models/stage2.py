"""The networks available for stage 2, by their names in the config."""

from torch import nn

from cascade_rt.config import CascadeConfig
from cascade_rt.models.comparators import build_comparator
from cascade_rt.models.localization_net import LocalizationUNet
from cascade_rt.models.multiscale_unet import MultiscaleUNet
from cascade_rt.models.tumor_net import TumorNet


def build_stage2(config: CascadeConfig) -> nn.Module:
    """Build the stage-2 network of a config.

    Returns:
        A module from `[batch, 1, row, col]`, row and col multiples of 16, to logits: either one map of the input shape,
        or a list of maps, coarse to fine, the last of which has the input shape.

    Raises:
        BackendUnavailableError: The network is from a library that is not installed.
    """
    network = _build(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm):
            module.eps = config.stage2_norm_epsilon
    return network


def _build(config: CascadeConfig) -> nn.Module:
    if config.stage2 == "focusing":
        return TumorNet(
            config.base_width,
            config.norm,
            config.bottleneck,
            config.stage2_features,
            config.context_kernel,
            config.interference,
            config.min_focusing_channels,
        )
    if config.stage2 == "localization":
        return LocalizationUNet(config.base_width, config.norm, config.bottleneck)
    if config.stage2 == "multiscale_unet":
        return MultiscaleUNet(config.base_width, config.norm, config.bottleneck)
    return build_comparator(config.stage2, config.base_width, config.norm)
