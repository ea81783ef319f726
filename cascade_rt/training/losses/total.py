"""The total training loss over both stages (Eq. 17)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cascade_rt.config import TrainConfig
from cascade_rt.training.losses.segmentation import dice_loss
from cascade_rt.training.losses.shared_boundary import class_probabilities, shared_boundary_loss


class Losses(NamedTuple):
    """The total and its parts, each a scalar."""

    total: Tensor
    organ: Tensor
    tumor: Tensor
    boundary: Tensor
    """0 if it was not computed."""


def organ_loss(logits: Tensor, target: Tensor, config: TrainConfig) -> Tensor:
    """Compute the stage-1 loss (Eq. 10), plus cross-entropy if the config asks for it."""
    loss = dice_loss(logits, target, config.overlap_over)
    if config.organ_loss == "dice_bce":
        loss = loss + F.binary_cross_entropy_with_logits(logits, target)
    return loss


def boundary_loss(organ_logits: Tensor, tumor_prob: Tensor, label: Tensor, config: TrainConfig) -> Tensor:
    """Compute the shared-boundary loss on whole slices (Eq. 14 to 16).

    Args:
        organ_logits: Output of stage 1, `[batch, 1, row, col]`.
        tumor_prob: Probabilities of stage 2, the same shape, 0 outside the crops.
        label: `[batch, row, col]`, the class of each pixel, below `config.boundary_classes`.
        config: Provides the classes, the mode and whether the frame counts.
    """
    prob = class_probabilities(torch.sigmoid(organ_logits), tumor_prob, config.boundary_classes)
    return shared_boundary_loss(prob, label, mode=config.boundary_mode, count_frame=config.boundary_frame)


def total_loss(organ: Tensor, tumor: Tensor, config: TrainConfig, *, boundary: Tensor | None = None) -> Losses:
    """Compute L = L_seg1 + alpha L_seg2 + beta L_isb (Eq. 17).

    Args:
        organ: The stage-1 loss, 0 if stage 1 does not exist or is not trained.
        tumor: The stage-2 loss, 0 if no slice of the batch has a crop.
        config: Provides the weights of the terms.
        boundary: The shared-boundary loss (see `boundary_loss`), or None if the training step does not use it.
    """
    total = organ + config.stage2_weight * tumor
    if boundary is None:
        return Losses(total, organ, tumor, organ.new_zeros(()))
    return Losses(total + config.boundary_weight * boundary, organ, tumor, boundary)
