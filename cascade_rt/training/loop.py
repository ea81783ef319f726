"""The training loop: epochs of S, then I, then J, each ending in a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.sampling import SliceSampler
from cascade_rt.data.slices import Case
from cascade_rt.errors import OutputExistsError, UsageError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.models.weights import fill_weights
from cascade_rt.training.checkpoint import (
    FILE_NAME,
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)
from cascade_rt.training.joint_pass import batch_losses
from cascade_rt.training.schedule import Step, begins_with_transfer, learning_rate, steps_by_epoch
from cascade_rt.training.transfer import transfer_stage1


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
    sampler = SliceSampler.over(cases, config, cascade.crop.margin)
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
        if begins_with_transfer(config, epoch):
            transfer_stage1(model)
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
    if model.stage1 is not None:
        model.stage1.train(config.train_stage1)
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
