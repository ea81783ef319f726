"""The salient change module, after RSTN: converts the organ probability to spatial weights for the image."""

import torch
from torch import Tensor, nn


class SaliencyModule(nn.Module):
    """saliency = conv5x5(ReLU(conv3x3(P))); salient = image * saliency.

    The 5x5 convolution is initialized with weights 0 and bias 1, so that the saliency is initially 1 everywhere and
    switching it on changes nothing at first. It is the only path for gradients of the stage-2 loss to stage 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(1, channels, kernel_size=3, padding=1)
        self.conv5 = nn.Conv2d(channels, 1, kernel_size=5, padding=2)
        nn.init.xavier_uniform_(self.conv3.weight)
        nn.init.ones_(_bias(self.conv3))
        nn.init.zeros_(self.conv5.weight)
        nn.init.ones_(_bias(self.conv5))

    def forward(self, image: Tensor, organ_prob: Tensor) -> Tensor:
        """Weight the image by the saliency of the organ probability; all tensors are `[batch, 1, row, col]`."""
        salient: Tensor = image * self.conv5(torch.relu(self.conv3(organ_prob)))
        return salient


def _bias(convolution: nn.Conv2d) -> Tensor:
    if convolution.bias is None:
        raise TypeError("the saliency convolutions have a bias")
    return convolution.bias
