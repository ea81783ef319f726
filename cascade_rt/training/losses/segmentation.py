"""The segmentation losses of both stages (Eq. 10 to 13).

All take logits and a binary target, `[batch, 1, row, col]`. The overlap terms, Dice and IoU, are computed for each
sample and averaged over the batch, or computed over the whole batch as one image (`over`).

A smoothing constant is added to the numerator and denominator, so that an empty prediction of an empty target costs
nothing. It is tiny for the Dice of stage 1, but a whole pixel for the IoU of stage 2, which sees crops without target.
With a tiny constant, the loss of such a crop would fall from 1 to 0 where the probabilities of all its pixels add up to
1e-5. The gradient there is 1e5 times as large as elsewhere and drives logits to -25.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cascade_rt.config import OverlapOver

DICE_SMOOTHING = 1e-5
IOU_SMOOTHING = 1.0
"""In pixels. F3Net, the source of the loss in Eq. 12, uses the same value."""
_SAMPLE = (1, 2, 3)
_OVERLAP_AXES: dict[OverlapOver, tuple[int, ...]] = {"slice": _SAMPLE, "batch": (0, *_SAMPLE)}


def dice_loss(logits: Tensor, target: Tensor, over: OverlapOver = "slice") -> Tensor:
    """Compute the stage-1 loss, soft Dice: 1 - 2 |P Y| / (|P| + |Y|) (Eq. 10)."""
    prob, axes = torch.sigmoid(logits), _OVERLAP_AXES[over]
    overlap = (prob * target).sum(axes)
    total = prob.sum(axes) + target.sum(axes)
    return (1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


def localization_loss(logits: Tensor, target: Tensor, over: OverlapOver = "slice") -> Tensor:
    """Compute the loss of the localization map: unweighted binary cross-entropy plus soft IoU (Eq. 11)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
    return cross_entropy + _iou_loss(logits, target, torch.ones_like(target), over)


def focusing_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    legacy_unweighted_bce: bool = False,
    over: OverlapOver = "slice",
) -> Tensor:
    """Compute the loss of a focusing map: weighted cross-entropy plus weighted soft IoU (Eq. 12).

    The cross-entropy is weighted pixel by pixel. The code this loss is known from passes `reduce="none"`, which
    averages first, so that its weights have no effect.

    Args:
        logits: `[batch, 1, row, col]`.
        target: The same shape.
        weight: The same shape; see `pixel_weight`.
        legacy_unweighted_bce: Use the plain mean cross-entropy of that code. The IoU stays weighted.
        over: What the IoU is computed over.
    """
    if legacy_unweighted_bce:
        return F.binary_cross_entropy_with_logits(logits, target) + _iou_loss(logits, target, weight, over)
    pixelwise = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cross_entropy = (weight * pixelwise).sum(_SAMPLE) / weight.sum(_SAMPLE)
    return cross_entropy.mean() + _iou_loss(logits, target, weight, over)


def pixel_weight(target: Tensor) -> Tensor:
    """Compute 1 + 5 |mean of the target in a 31x31 window - target|: up to 6 near the boundary, 1 far from it.

    Pixels beyond the frame count as background. Averaging rows, then columns, gives the same mean with less work.
    """
    rows = F.avg_pool2d(target, kernel_size=(31, 1), stride=1, padding=(15, 0))
    mean = F.avg_pool2d(rows, kernel_size=(1, 31), stride=1, padding=(0, 15))
    return 1 + 5 * (mean - target).abs()


def tumor_loss(
    outputs: Sequence[Tensor],
    target: Tensor,
    output_weights: Sequence[float],
    *,
    legacy_unweighted_bce: bool = False,
    over: OverlapOver = "slice",
) -> Tensor:
    """Compute the stage-2 loss over all outputs (Eq. 13).

    Args:
        outputs: Logit maps, coarse to fine: the localization map, then the focusing maps. Each is resized to the
            target. A network without focusing modules has one map, which counts as a focusing map of weight 1, and
            may have a localization map before it.
        target: `[batch, 1, row, col]`, 1 where there is tumor.
        output_weights: One weight per focusing map, coarse to fine. The localization map has weight 1.
        legacy_unweighted_bce: See `focusing_loss`.
        over: What the overlaps are computed over.
    """
    maps = [_resize(logits, target) for logits in outputs]
    focusing = maps[1:] if len(maps) > 1 else maps
    loss = localization_loss(maps[0], target, over) if len(maps) > 1 else target.new_zeros(())
    weight = pixel_weight(target)
    for output_weight, logits in zip(output_weights if len(focusing) > 1 else (1.0,), focusing, strict=True):
        focusing_part = focusing_loss(logits, target, weight, legacy_unweighted_bce=legacy_unweighted_bce, over=over)
        loss = loss + output_weight * focusing_part
    return loss


def _iou_loss(logits: Tensor, target: Tensor, weight: Tensor, over: OverlapOver) -> Tensor:
    prob, axes = torch.sigmoid(logits), _OVERLAP_AXES[over]
    overlap = (weight * prob * target).sum(axes)
    union = (weight * (prob + target)).sum(axes) - overlap
    return (1 - (overlap + IOU_SMOOTHING) / (union + IOU_SMOOTHING)).mean()


def _resize(logits: Tensor, target: Tensor) -> Tensor:
    if logits.shape[-2:] == target.shape[-2:]:
        return logits
    size = (int(target.shape[-2]), int(target.shape[-1]))
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
