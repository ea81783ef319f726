"""One batch through both stages, as a training step joins them, and its losses."""

from dataclasses import replace

import numpy as np
import torch

from cascade_rt.config import CropConfig, TrainConfig
from cascade_rt.crop import Box, full_box, grow, plan_mask_box
from cascade_rt.data.sampling import Batch
from cascade_rt.data.slices import PANCREAS, TUMOR
from cascade_rt.losses.total import Losses, boundary_loss, total_loss
from cascade_rt.models.cascade_model import CascadeModel, paste_crops
from cascade_rt.training.schedule import Step, has_boundary_loss


def plan_training_boxes(
    label: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    organ_prob: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    config: CropConfig,
    *,
    predicted: bool,
) -> tuple[list[int], list[Box]]:
    """Plan the crops of a batch: one size for all, the largest that any of them needs.

    A slice without organ in the prediction falls back to the true organ; without either, the crop is the whole slice
    or, where the policy is to skip, there is none.

    Args:
        label: `[batch, row, col]`.
        organ_prob: `[batch, row, col]`, what stage 1 predicts.
        config: Threshold, margin, grid and policy.
        predicted: Whether to follow the prediction or the label.

    Returns:
        The slices that have a crop, and their boxes.
    """
    image_shape = (label.shape[1], label.shape[2])
    organ_only = replace(config, empty_policy="skip")
    planned: dict[int, Box] = {}
    for index in range(len(label)):
        box = None
        if predicted:
            box = plan_mask_box(organ_prob[index] >= config.threshold, organ_only)
        box = box or plan_mask_box(label[index] > 0, organ_only)
        if box is None and config.empty_policy == "full":
            box = full_box(image_shape, config)
        if box is not None:
            planned[index] = box
    if not planned:
        return [], []
    size = (max(box.height for box in planned.values()), max(box.width for box in planned.values()))
    return list(planned), [grow(box, size, image_shape) for box in planned.values()]


def batch_losses(model: CascadeModel, batch: Batch, step: Step, config: TrainConfig) -> Losses:
    """Run one batch through both stages, as the training step says, and weigh the result."""
    device = next(model.parameters()).device
    hu = torch.from_numpy(batch.hu).to(device)
    label = torch.from_numpy(batch.label).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.mixed_precision):
        organ = model.find_organ(hu)
        slices, boxes = plan_training_boxes(
            batch.label,
            organ.prob.detach()[:, 0].float().cpu().numpy(),
            model.config.crop,
            predicted=step.predicted_boxes,
        )
        outputs = model.find_tumor(organ, slices, boxes, use_saliency=step.use_saliency) if boxes else []
    organ_logits, outputs = organ.logits.float(), [logits.float() for logits in outputs]
    lowest = TUMOR if model.config.target == "tumor" else PANCREAS
    target = (label >= lowest).float().unsqueeze(1)
    crops = [target[(index, slice(None), *box.slices)] for index, box in zip(slices, boxes, strict=True)]
    boundary = None
    if has_boundary_loss(step, config):
        stage2_prob = torch.zeros_like(target)
        if outputs:
            stage2_prob = paste_crops(torch.sigmoid(outputs[-1]), slices, boxes, target)
        classes = target[:, 0] if config.boundary_classes == 2 else label
        boundary = boundary_loss(organ_logits, stage2_prob, classes, config)
    return total_loss(
        organ_logits,
        (label > 0).float().unsqueeze(1),
        outputs,
        torch.stack(crops) if crops else hu.new_zeros(()),
        config,
        boundary=boundary,
    )
