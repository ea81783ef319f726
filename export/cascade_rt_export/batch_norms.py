"""Fold batch normalizations into the preceding convolutions."""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def with_folded_norms(network: nn.Module) -> nn.Module:
    """Copy a network in evaluation mode, with each batch normalization folded into the convolution before it.

    Folding is done in float64, so that each weight is rounded only once. The exporter would fold in float32, where all
    weights of a channel share the rounding error of its scale, which no later sum averages out (docs/decisions/0008).
    """
    folded = copy.deepcopy(network).eval()
    for block in folded.modules():
        if isinstance(block, nn.Sequential):
            _fold(block)
    return folded


def _fold(block: nn.Sequential) -> None:
    for (name, convolution), (norm_name, norm) in pairwise(list(block.named_children())):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            dtype = convolution.weight.dtype
            one = fuse_conv_bn_eval(convolution.to(torch.float64), norm.to(torch.float64))
            setattr(block, name, one.to(dtype))
            setattr(block, norm_name, nn.Identity())
