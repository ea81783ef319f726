"""What training minimises: both stages at once (Eq. 17)."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from cascade_rt.config import TrainConfig
from cascade_rt.losses.segmentation import dice_loss, tumor_loss


class Losses(NamedTuple):
    """The total and its parts, each a scalar."""

    total: Tensor
    organ: Tensor
    tumor: Tensor


def organ_loss(logits: Tensor, target: Tensor, config: TrainConfig) -> Tensor:
    """The stage-1 loss: Eq. 10, with cross-entropy added where the config asks for it."""
    loss = dice_loss(logits, target)
    if config.organ_loss == "dice_bce":
        loss = loss + F.binary_cross_entropy_with_logits(logits, target)
    return loss


def total_loss(
    organ_logits: Tensor, organ_target: Tensor, tumor_outputs: list[Tensor], tumor_target: Tensor, config: TrainConfig
) -> Losses:
    """L = L_seg1 + alpha L_seg2 (Eq. 17).

    Args:
        organ_logits: Stage 1 on whole slices, `[batch, 1, row, col]`.
        organ_target: 1 where there is pancreas or tumour, the same shape.
        tumor_outputs: The five outputs of stage 2 on the crops; empty where no slice of the batch has a crop.
        tumor_target: 1 where there is what stage 2 is to find, `[crop, 1, row, col]`, cut with the same boxes.
        config: The weights.
    """
    organ = organ_loss(organ_logits, organ_target, config)
    if not tumor_outputs:
        return Losses(organ, organ, organ.new_zeros(()))
    tumor = tumor_loss(tumor_outputs, tumor_target, config.output_weights)
    return Losses(organ + config.stage2_weight * tumor, organ, tumor)
