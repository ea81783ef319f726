"""The three training steps: S, I and J."""

from dataclasses import dataclass
from typing import Literal

from cascade_rt.config import TrainConfig

StepName = Literal["S", "I", "J"]


@dataclass(frozen=True, slots=True)
class Step:
    """How a training step connects the two stages."""

    name: StepName
    use_saliency: bool
    """Whether stage 2 sees the image times its saliency. If not, the stage-2 loss has no gradient in stage 1."""
    predicted_boxes: bool
    """Whether crops follow the prediction of stage 1, as at test time, rather than the true organ."""


SEPARATE = Step("S", use_saliency=False, predicted_boxes=False)
INTERMEDIATE = Step("I", use_saliency=True, predicted_boxes=False)
JOINT = Step("J", use_saliency=True, predicted_boxes=True)
STEPS = (SEPARATE, INTERMEDIATE, JOINT)


def steps_by_epoch(config: TrainConfig) -> list[Step]:
    """Return the training step of each epoch, in order."""
    if not config.joint:
        return [SEPARATE] * sum(config.epochs)
    return [step for step, epochs in zip(STEPS, config.epochs, strict=True) for _ in range(epochs)]


def transfers(config: TrainConfig) -> bool:
    """Return whether stage 2 takes over the weights of stage 1 at some point of the run."""
    return config.transfer and config.joint and sum(config.epochs[1:]) > 0


def begins_with_transfer(config: TrainConfig, epoch: int) -> bool:
    """Return whether the weights of stage 1 are copied to stage 2 before this epoch, the first after step S."""
    return transfers(config) and epoch == config.epochs[0]


def has_boundary_loss(step: Step, config: TrainConfig) -> bool:
    """Return whether a training step also minimizes the shared-boundary loss."""
    names = [each.name for each in STEPS]
    return config.boundary_weight > 0 and names.index(step.name) >= names.index(config.boundary_from)


def learning_rate(config: TrainConfig, iteration: int, iterations: int) -> float:
    """Return the learning rate of one of `iterations` iterations."""
    if config.schedule == "constant":
        return config.learning_rate
    return float(config.learning_rate * (1 - iteration / iterations) ** 0.9)
