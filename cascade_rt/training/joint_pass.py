"""Run one batch through both stages, as the training step connects them, and compute its losses."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cascade_rt.common.labels import LOWEST_LABEL
from cascade_rt.config import CropConfig, TrainConfig
from cascade_rt.data.sampling import Batch
from cascade_rt.models.cascade_model import CascadeModel, OrganPass, paste_crops
from cascade_rt.models.crop import Box, full_box, grow, plan_mask_box
from cascade_rt.models.hu_window import apply_window
from cascade_rt.training.losses.segmentation import tumor_loss
from cascade_rt.training.losses.total import Losses, boundary_loss, organ_loss, total_loss
from cascade_rt.training.schedule import Step, has_boundary_loss


class CropGroup(NamedTuple):
    """Crops of equal size, which stage 2 processes together."""

    slices: list[int]
    """For each crop, the index of its slice in the batch."""
    boxes: list[Box]


def plan_training_boxes(
    label: npt.NDArray[np.uint8],
    organ: npt.NDArray[np.bool_] | None,
    config: CropConfig,
    margins: npt.NDArray[np.int64] | None = None,
) -> list[CropGroup]:
    """Plan the crops of a batch.

    Crops around an organ form one group, of the largest size that any of them needs. A slice without a predicted organ
    falls back to the true organ. Slices without either form a second group of whole slices, or are left out if the
    policy is to skip.

    Args:
        label: `[batch, row, col]`.
        organ: `[batch, row, col]`, the predicted organ, or None to place the boxes by the label.
        config: Threshold, margin, grid and policy.
        margins: `[batch, 4]`, pixels above, below, left and right of each box, or None for `config.margin` everywhere.
    """
    image_shape = (label.shape[1], label.shape[2])
    organ_only = replace(config, empty_policy="skip")
    planned: dict[int, Box] = {}
    for index, truth in enumerate(label):
        sides = None if margins is None else margins[index]
        box = None if organ is None else plan_mask_box(organ[index], organ_only, sides)
        box = box or plan_mask_box(truth > 0, organ_only, sides)
        if box is not None:
            planned[index] = box
    groups = []
    if planned:
        size = (max(box.height for box in planned.values()), max(box.width for box in planned.values()))
        groups.append(CropGroup(list(planned), [grow(box, size, image_shape) for box in planned.values()]))
    whole = [index for index in range(len(label)) if index not in planned]
    if whole and config.empty_policy == "full":
        groups.append(CropGroup(whole, [full_box(image_shape, config)] * len(whole)))
    return groups


def batch_losses(model: CascadeModel, batch: Batch, step: Step, config: TrainConfig) -> Losses:
    """Run one batch through the trained stages, as the training step prescribes, and compute the weighted losses."""
    device = next(model.parameters()).device
    hu = torch.from_numpy(batch.hu).to(device)
    label = torch.from_numpy(batch.label).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.mixed_precision):
        organ = _find_organ(model, hu, step, config)
        groups = _plan_groups(model, organ, batch, step, config) if config.stage2_weight else []
        outputs = [_run_group(model, organ, group, step) for group in groups]
    target = (label >= LOWEST_LABEL[model.config.target]).float().unsqueeze(1)
    boundary = None
    if groups and organ.logits is not None and has_boundary_loss(step, config):
        classes = target[:, 0] if config.boundary_classes == 2 else label
        boundary = boundary_loss(organ.logits.float(), _paste_groups(outputs, groups, target), classes, config)
    organ_part = hu.new_zeros(())
    if organ.logits is not None and config.train_stage1:
        organ_part = organ_loss(organ.logits.float(), (label > 0).float().unsqueeze(1), config)
    return total_loss(organ_part, _group_loss(outputs, groups, target, config), config, boundary=boundary)


def _find_organ(model: CascadeModel, hu: Tensor, step: Step, config: TrainConfig) -> OrganPass:
    """Run stage 1 if anything depends on it: its own loss, the saliency, the boxes or the boundary loss."""
    if config.train_stage1:
        return model.find_organ(hu)
    if not (step.use_saliency or step.predicted_boxes or has_boundary_loss(step, config)):
        image = apply_window(hu, model.config.window_hu)
        return OrganPass(image, None, torch.ones_like(image))
    with torch.no_grad():
        return model.find_organ(hu)


def _plan_groups(
    model: CascadeModel, organ: OrganPass, batch: Batch, step: Step, config: TrainConfig
) -> list[CropGroup]:
    crop = model.config.crop
    if model.stage1 is None:
        return [CropGroup(list(range(len(batch.label))), [full_box(batch.label.shape[1:], crop)] * len(batch.label))]
    if not step.predicted_boxes:
        return plan_training_boxes(batch.label, None, crop, batch.margins)
    found = _mask(organ.prob, crop)
    if config.joint_crop == "stage2":
        groups = plan_training_boxes(batch.label, found, crop, batch.margins)
        with torch.no_grad():
            outputs = [_run_group(model, organ, group, step) for group in groups]
        refined = _mask(_paste_groups(outputs, groups, organ.prob), crop)
        found = np.where(refined.any(axis=(1, 2), keepdims=True), refined, found)
    return plan_training_boxes(batch.label, found, crop, batch.margins)


def _run_group(model: CascadeModel, organ: OrganPass, group: CropGroup, step: Step) -> list[Tensor]:
    outputs = model.find_tumor(organ, group.slices, group.boxes, use_saliency=step.use_saliency)
    return [logits.float() for logits in outputs]


def _group_loss(
    outputs: Sequence[Sequence[Tensor]], groups: Sequence[CropGroup], target: Tensor, config: TrainConfig
) -> Tensor:
    """Compute the stage-2 loss as a mean over all crops, whatever their size, or 0 if there are none."""
    total = target.new_zeros(())
    for maps, group in zip(outputs, groups, strict=True):
        crops = [target[(index, slice(None), *box.slices)] for index, box in zip(*group, strict=True)]
        total = total + len(crops) * tumor_loss(
            maps,
            torch.stack(crops),
            config.output_weights,
            legacy_unweighted_bce=config.legacy_unweighted_bce,
            over=config.overlap_over,
        )
    return total / max(1, sum(len(group.slices) for group in groups))


def _paste_groups(outputs: Sequence[Sequence[Tensor]], groups: Sequence[CropGroup], frames: Tensor) -> Tensor:
    """Paste the probabilities of stage 2 into whole slices: `[batch, 1, row, col]`, 0 outside the crops."""
    pasted = torch.zeros_like(frames)
    for maps, group in zip(outputs, groups, strict=True):
        pasted = pasted + paste_crops(torch.sigmoid(maps[-1]), group.slices, group.boxes, frames)
    return pasted


def _mask(prob: Tensor, config: CropConfig) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (prob.detach()[:, 0] >= config.threshold).cpu().numpy()
    return found
