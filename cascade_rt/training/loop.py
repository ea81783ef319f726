"""The training loop: epochs of S, then I, then J, each ending in a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cascade_rt.config import CascadeConfig, CropConfig, TrainConfig
from cascade_rt.crop import Box, full_box, grow, plan_mask_box
from cascade_rt.data.sampling import Batch, SliceSampler
from cascade_rt.data.slices import PANCREAS, TUMOR, Case
from cascade_rt.errors import OutputExistsError, UsageError
from cascade_rt.losses.total import Losses, boundary_loss, total_loss
from cascade_rt.models.cascade_model import CascadeModel, paste_crops
from cascade_rt.models.weights import fill_weights
from cascade_rt.training.checkpoint import (
    FILE_NAME,
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from cascade_rt.training.schedule import Step, has_boundary_loss, learning_rate, steps_by_epoch


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training run stands after one batch."""

    epoch: int
    """Epochs finished before this one."""
    epochs: int
    step: str
    """S, I or J."""
    batch: int
    """Batches finished in this epoch."""
    batches: int
    organ_loss: float
    tumor_loss: float
    boundary_loss: float
    """0 in a step without it."""


def train(
    cases: Sequence[Case],
    run: Path,
    cascade: CascadeConfig,
    config: TrainConfig,
    *,
    data: str,
    initial: Checkpoint | None = None,
    resume: bool = False,
    on_batch: Callable[[Progress], None] = lambda _: None,
    on_epoch: Callable[[dict[str, float | str]], None] = lambda _: None,
) -> Checkpoint:
    """Train a cascade; a checkpoint is written after each epoch.

    An epoch depends on nothing but the checkpoint before it and the seed, so a run that was stopped and resumed ends
    in the same weights as one that was not, on the same machine.

    Args:
        cases: Training cases.
        run: Folder of the run; its checkpoint is `run/checkpoint.safetensors`.
        cascade: The networks and the glue.
        config: The training.
        data: What the cases are, in words; it ends up in the bundle.
        initial: Start from the weights of this run instead of random ones.
        resume: Go on from the checkpoint in `run` where there is one.
        on_batch: Called after each batch.
        on_epoch: Called after each epoch, once its checkpoint is written, with its number, step and mean losses.

    Raises:
        InputError: The cases hold no slice to train on.
        BundleError: `initial` holds the weights of another network.
        OutputExistsError: `run` holds a checkpoint and `resume` is off.
        UsageError: The checkpoint in `run` belongs to another configuration.
    """
    sampler = SliceSampler.over(cases, config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = CascadeModel(cascade)
    if initial is not None:
        fill_weights(model, initial.model, "the checkpoint to start from")
        data = f"{data}, after {initial.epochs_done} epochs on {initial.data}"
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(model, config)
    checkpoint = _starting_point(run, cascade, config, data, resume)
    if checkpoint.epochs_done:
        model.load_state_dict(dict(checkpoint.model))
        restore_optimizer(optimizer, checkpoint.optimizer)
    steps = steps_by_epoch(config)
    for epoch in range(checkpoint.epochs_done, len(steps)):
        losses = _train_epoch(model, optimizer, sampler, steps, epoch, on_batch)
        entry: dict[str, float | str] = {"epoch": epoch + 1, "step": steps[epoch].name, **losses}
        checkpoint = replace(
            checkpoint,
            epochs_done=epoch + 1,
            model={name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
            optimizer={name: tensor.cpu() for name, tensor in flatten_optimizer(optimizer).items()},
            history=(*checkpoint.history, entry),
        )
        save_checkpoint(checkpoint, run / FILE_NAME)
        on_epoch(entry)
    return checkpoint


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


def _train_epoch(
    model: CascadeModel,
    optimizer: torch.optim.Optimizer,
    sampler: SliceSampler,
    steps: Sequence[Step],
    epoch: int,
    on_batch: Callable[[Progress], None],
) -> dict[str, float]:
    config, batches = sampler.config, sampler.batches_per_epoch
    sums: list[Tensor] = []
    model.train()
    for number, batch in enumerate(sampler.epoch(epoch)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, epoch * batches + number, len(steps) * batches)
        losses = batch_losses(model, batch, steps[epoch], config)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sums.append(torch.stack([losses.organ, losses.tumor, losses.boundary]).detach())
        on_batch(Progress(epoch, len(steps), steps[epoch].name, number + 1, batches, **_named(sums[-1])))
    return _named(torch.stack(sums).mean(dim=0))


def _named(losses: Tensor) -> dict[str, float]:
    organ, tumor, boundary = losses.tolist()
    return {"organ_loss": organ, "tumor_loss": tumor, "boundary_loss": boundary}


def _optimizer(model: CascadeModel, config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def _starting_point(run: Path, cascade: CascadeConfig, config: TrainConfig, data: str, resume: bool) -> Checkpoint:
    if not (run / FILE_NAME).exists():
        run.mkdir(parents=True, exist_ok=True)
        return Checkpoint(cascade, config, data, epochs_done=0, model={}, optimizer={})
    if not resume:
        raise OutputExistsError(f"{run}: holds a training run; go on with --resume, or name another folder")
    checkpoint = load_checkpoint(run)
    if (checkpoint.cascade, checkpoint.train, checkpoint.data) != (cascade, config, data):
        raise UsageError(f"{run}: was trained with another configuration; resume with that one, or name another folder")
    return checkpoint
