"""The training loop: epochs of S, then I, then J, each ending in a checkpoint."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cascade_rt.common.arguments import as_path
from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.sampling import Batch, SliceSampler
from cascade_rt.data.slices import Case
from cascade_rt.errors import BundleError, UsageError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.models.weights import fill_weights
from cascade_rt.training.checkpoint import (
    FILE_NAME,
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
)
from cascade_rt.training.distributed import ALONE, Workers
from cascade_rt.training.joint_pass import batch_losses
from cascade_rt.training.run_folder import check_run_folder, rewrite_logs, save_epoch
from cascade_rt.training.schedule import Step, begins_with_transfer, learning_rate, steps_by_epoch, transfers
from cascade_rt.training.transfer import fitting, fitting_weights, transfer_stage1
from cascade_rt.training.validation import validate

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """Summary of a training run before its first batch."""

    device: str
    precision: str
    """Numeric precision of the forward passes."""
    parameters: tuple[int, int]
    """Counts of learned parameters: stage 1 including saliency, then stage 2."""
    cases: tuple[int, int]
    """Number of training cases, then of held-out cases."""
    slices: int
    """Number of slices selected by `train.slices`. An epoch visits each once, plus some background slices,
    unless `train.tumor_share` decides how often slices with tumor come."""
    epochs: tuple[int, int]
    """Epochs already done, then the total at the end of the run."""
    batches: int
    """Batches per epoch."""

    def __str__(self) -> str:
        done, all_epochs = self.epochs
        resumed = f", {done} of them done" if done else ""
        stage1, stage2 = self.parameters
        return (
            f"on {self.device} in {self.precision}, {self.cases[0]} cases with {self.slices} slices, "
            f"{self.cases[1]} held out; {all_epochs} epochs{resumed}, {(all_epochs - done) * self.batches} iterations; "
            f"{stage1 + stage2:,} parameters, {stage1:,} in stage 1 and {stage2:,} in stage 2"
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a training run after one batch."""

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
    """0 in a training step without this loss."""


def train(
    cases: Sequence[Case],
    run: str | os.PathLike[str],
    cascade: CascadeConfig,
    config: TrainConfig,
    *,
    data: str,
    initial: Checkpoint | None = None,
    resume: bool = False,
    validation: Sequence[Case] = (),
    workers: Workers = ALONE,
    on_start: Callable[[Start], None] = lambda _: None,
    on_batch: Callable[[Progress], None] = lambda _: None,
    on_epoch: Callable[[dict[str, float | str]], None] = lambda _: None,
) -> Checkpoint:
    """Train a cascade and write a checkpoint after each epoch.

    An epoch depends only on the previous checkpoint and the seed. A run that was stopped and resumed therefore ends
    with the same weights as an uninterrupted one, given the same machine and number of processes.

    Args:
        cases: Training cases.
        run: Folder of the run (see `run_folder`).
        cascade: Configuration of the networks and of the steps between them.
        config: Training configuration.
        data: Description of the cases. It is recorded in the bundle.
        initial: Start from the weights of this run instead of random ones.
        resume: Continue from the checkpoint in `run`, if it exists.
        validation: Cases to measure Dice on after each epoch (see `validate`). The weights do not depend on them.
        workers: The processes that train together. The first one validates, writes and calls `on_epoch`.
        on_start: Called before the first batch.
        on_batch: Called after each batch.
        on_epoch: Called with the history entry of each epoch, once its checkpoint is written.

    Raises:
        InputError: The cases contain no slice to train on.
        BundleError: `initial` holds the weights of a different network.
        OutputError: `run` cannot be written.
        OutputExistsError: `run` holds a checkpoint and `resume` is off.
        UsageError: The checkpoint in `run` has a different configuration, or a batch has fewer slices than there are
            processes.
    """
    run = as_path("run", run)
    check_run_folder(run, resume=resume)
    workers.check(config.batch_size)
    sampler = SliceSampler.over(cases, config, cascade.crop.margin)
    fresh = Checkpoint(cascade, config, _described(data, len(validation), initial), 0, {}, {})
    checkpoint = _starting_point(run, fresh, writes_logs=workers.is_first)
    model = _first_model(checkpoint, initial)
    optimizer = _first_optimizer(checkpoint, model)
    steps = steps_by_epoch(config)
    on_start(_start(model, sampler, checkpoint, (len(cases), len(validation)), len(steps)))
    for epoch in range(checkpoint.epochs_done, len(steps)):
        losses = _train_epoch(model, optimizer, sampler, steps, epoch, workers, on_batch)
        dice = validate(model, validation) if workers.is_first else {}
        checkpoint = _after_epoch(checkpoint, model, optimizer, steps, {**losses, **dice})
        if workers.is_first:
            save_epoch(checkpoint, run)
            on_epoch(checkpoint.history[-1])
    return checkpoint


def _start(
    model: CascadeModel, sampler: SliceSampler, checkpoint: Checkpoint, cases: tuple[int, int], epochs: int
) -> Start:
    device = next(model.parameters()).device
    stage2 = sum(each.numel() for each in model.stage2.parameters())
    start = Start(
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu (threads: {torch.get_num_threads()})",
        precision="bfloat16 where that is safe" if checkpoint.train.mixed_precision else "float32",
        parameters=(sum(each.numel() for each in model.parameters()) - stage2, stage2),
        cases=cases,
        slices=len(sampler.foreground),
        epochs=(checkpoint.epochs_done, epochs),
        batches=sampler.batches_per_epoch,
    )
    _log.info("training on %s: %s", checkpoint.data, start)
    return start


def _described(data: str, held_out: int, initial: Checkpoint | None) -> str:
    """Describe the training data. A run is resumed only if its description is the same."""
    if held_out:
        data = f"{data}, cases held out for validation: {held_out}"
    return data if initial is None else f"{data}, after {initial.epochs_done} epochs on {initial.data}"


def _starting_point(run: Path, fresh: Checkpoint, *, writes_logs: bool) -> Checkpoint:
    """Return the checkpoint of a run, or `fresh` if none exists. Raises UsageError if config or data differ."""
    if not (run / FILE_NAME).exists():
        return fresh
    found = _with_spacing_of(fresh, load_checkpoint(run))
    if (found.cascade, found.train) != (fresh.cascade, fresh.train):
        raise UsageError(f"{run}: was trained with another configuration; resume with that, or choose another folder")
    if found.data != fresh.data:
        told = f"was trained on different data ({found.data}, not {fresh.data})"
        raise UsageError(f"{run}: {told}; resume with those, or choose another folder")
    if found.history and writes_logs:
        rewrite_logs(found, run)
    return found


def _with_spacing_of(fresh: Checkpoint, found: Checkpoint) -> Checkpoint:
    """Fill in missing spacing ranges from `fresh`, for runs started before these ranges were recorded."""
    cascade = replace(
        found.cascade,
        pixel_mm=found.cascade.pixel_mm or fresh.cascade.pixel_mm,
        slice_mm=found.cascade.slice_mm or fresh.cascade.slice_mm,
    )
    return replace(found, cascade=cascade)


def _first_model(checkpoint: Checkpoint, initial: Checkpoint | None) -> CascadeModel:
    """Build the model of a checkpoint on the training device, with new weights if no epoch is done."""
    with torch.random.fork_rng():
        torch.manual_seed(checkpoint.train.seed)
        model = CascadeModel(checkpoint.cascade)
    if transfers(checkpoint.train):
        fitting_weights(model)
    if initial is not None:
        fill_weights(model, _starting_weights(model, initial, checkpoint.train), "the checkpoint to start from")
    if checkpoint.epochs_done:
        fill_weights(model, checkpoint.model, "the checkpoint to resume from")
    _compile(model, checkpoint.train)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _starting_weights(model: CascadeModel, initial: Checkpoint, config: TrainConfig) -> Mapping[str, Tensor]:
    """Return the weights to start from: all of `initial`, or with `partial_init` those that fit the model."""
    learned = fitting(initial.model, model)
    if config.partial_init and not learned:
        raise BundleError("the checkpoint to start from: none of its weights fit this network; train from random ones")
    if not config.partial_init and not learned.keys() == initial.model.keys() == model.state_dict().keys():
        raise BundleError(
            "the checkpoint to start from: holds the weights of another network; load what fits with train.partial_init"
        )
    return {**model.state_dict(), **learned}


def _first_optimizer(checkpoint: Checkpoint, model: CascadeModel) -> torch.optim.Optimizer:
    """Create the optimizer and restore its state from the checkpoint."""
    optimizer = _optimizer(model, checkpoint.train)
    if checkpoint.epochs_done:
        restore_optimizer(optimizer, checkpoint.optimizer)
    return optimizer


def _after_epoch(
    before: Checkpoint,
    model: CascadeModel,
    optimizer: torch.optim.Optimizer,
    steps: Sequence[Step],
    measured: Mapping[str, float],
) -> Checkpoint:
    """Return the checkpoint after one more epoch, with its losses and Dice in the history."""
    epoch = before.epochs_done
    entry: dict[str, float | str] = {"epoch": epoch + 1, "step": steps[epoch].name, **measured}
    _log.info("epoch %d of %d is done: %s", epoch + 1, len(steps), entry)
    return replace(
        before,
        epochs_done=epoch + 1,
        model={name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        optimizer={name: tensor.cpu() for name, tensor in flatten_optimizer(optimizer).items()},
        history=(*before.history, entry),
    )


def _train_epoch(
    model: CascadeModel,
    optimizer: torch.optim.Optimizer,
    sampler: SliceSampler,
    steps: Sequence[Step],
    epoch: int,
    workers: Workers,
    on_batch: Callable[[Progress], None],
) -> dict[str, float]:
    """Train for one epoch. Returns the mean losses and the learning rate of the last batch."""
    config, batches = sampler.config, sampler.batches_per_epoch
    sums: list[Tensor] = []
    rate = config.learning_rate
    _begin_epoch(model, config, epoch)
    for number, batch in enumerate(sampler.epoch(epoch, workers.rank, workers.count)):
        rate = learning_rate(config, epoch * batches + number, len(steps) * batches)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        sums.append(workers.add(_backward(model, batch, steps[epoch], config)))
        workers.add_gradients(model)
        optimizer.step()
        on_batch(Progress(epoch, len(steps), steps[epoch].name, number + 1, batches, **_named(sums[-1])))
    workers.share_buffers(model)
    return {**_named(torch.stack(sums).mean(dim=0)), "learning_rate": rate}


def _compile(model: CascadeModel, config: TrainConfig) -> None:
    """Compile the trained networks in place, so that their weights keep their names."""
    if not config.compiled:
        return
    if model.stage1 is not None and config.train_stage1:
        model.stage1.compile()
    if config.stage2_weight:
        model.stage2.compile()


def _begin_epoch(model: CascadeModel, config: TrainConfig, epoch: int) -> None:
    if begins_with_transfer(config, epoch):
        transfer_stage1(model)
    model.train()
    if model.stage1 is not None:
        model.stage1.train(config.train_stage1)


def _backward(model: CascadeModel, batch: Batch, step: Step, config: TrainConfig) -> Tensor:
    """Compute the gradients of a batch and return its three losses, both scaled by the batch's share."""
    if not batch.share:
        return torch.zeros(3, device=next(model.parameters()).device)
    losses = batch_losses(model, batch, step, config)
    # Nothing to learn: stage 1 is not trained, and no slice of the batch has a crop for stage 2.
    if losses.total.requires_grad:
        (losses.total * batch.share).backward()  # type: ignore[no-untyped-call]
    return torch.stack([losses.organ, losses.tumor, losses.boundary]).detach() * batch.share


def _named(losses: Tensor) -> dict[str, float]:
    organ, tumor, boundary = losses.tolist()
    return {"organ_loss": organ, "tumor_loss": tumor, "boundary_loss": boundary}


def _optimizer(model: CascadeModel, config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
