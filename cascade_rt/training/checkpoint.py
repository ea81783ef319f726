"""Checkpoints: one safetensors file with weights, optimizer and progress. No pickle, written atomically.

Tensors are named `model.*` and `optimizer.<parameter>.<slot>`. Everything else is JSON in the file's metadata, so that
a checkpoint can never be half new and half old.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cascade_rt.common.atomic import write_bytes
from cascade_rt.config import CascadeConfig, TrainConfig, from_mapping, to_mapping
from cascade_rt.errors import BundleError, UsageError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.models.weights import fill_weights

FORMAT = "cascade-rt checkpoint 3"
FILE_NAME = "checkpoint.safetensors"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training run after a whole number of epochs."""

    cascade: CascadeConfig
    train: TrainConfig
    data: str
    """Description of the training data."""
    epochs_done: int
    model: Mapping[str, Tensor]
    """State dict of the `CascadeModel`."""
    optimizer: Mapping[str, Tensor]
    """Flattened optimizer state: `<parameter index>.<slot>`."""
    history: tuple[dict[str, float | str], ...] = field(default=())
    """Number, step, mean losses and last learning rate of each epoch, and its Dice if it was validated."""

    def build_model(self) -> CascadeModel:
        """Build the model with these weights, in evaluation mode.

        Raises:
            BundleError: The weights belong to a different network.
        """
        return fill_weights(CascadeModel(self.cascade), self.model, "the checkpoint")


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, atomically replacing an existing file."""
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in checkpoint.model.items()}
    tensors |= {f"optimizer.{name}": tensor.contiguous() for name, tensor in checkpoint.optimizer.items()}
    progress = {
        "cascade": to_mapping(checkpoint.cascade),
        "train": to_mapping(checkpoint.train),
        "data": checkpoint.data,
        "epochs_done": checkpoint.epochs_done,
        "history": checkpoint.history,
    }
    content = save(tensors, metadata={"format": FORMAT, "progress": json.dumps(progress)})
    write_bytes(path, content, overwrite=True)
    _log.info("wrote %s, after %d epochs", path, checkpoint.epochs_done)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint from its file, or the latest one from a run folder.

    Raises:
        BundleError: The file does not exist, cannot be read, or is not a checkpoint of this version.
    """
    path = path / FILE_NAME if path.is_dir() else path
    _log.info("reading %s", path)
    if not path.is_file():
        raise BundleError(f"{path}: no such checkpoint; choose a run folder or its {FILE_NAME}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except SafetensorError as error:
        raise BundleError(f"{path}: is not a safetensors file ({error}); choose the checkpoint of a run") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error}); check its permissions") from error
    except MemoryError as error:
        raise BundleError(f"{path}: does not fit in memory; choose another checkpoint", code="E_TOO_LARGE") from error
    if metadata.get("format") != FORMAT:
        raise BundleError(f"{path}: is not a training checkpoint of this version of cascade-rt; choose a run folder")
    try:
        progress = json.loads(metadata["progress"])
        return Checkpoint(
            cascade=from_mapping(CascadeConfig, progress["cascade"], "cascade"),
            train=from_mapping(TrainConfig, progress["train"], "train"),
            data=progress["data"],
            epochs_done=progress["epochs_done"],
            model=_strip(tensors, "model."),
            optimizer=_strip(tensors, "optimizer."),
            history=tuple(progress["history"]),
        )
    except (UsageError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: its progress cannot be read ({error!r}); train again") from error


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the optimizer state to named tensors. Its settings come from the config and are not saved."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{parameter}.{slot}": value
        for parameter, slots in state.items()
        for slot, value in slots.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Load a flattened state into a new optimizer of the same type."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        parameter, slot = name.split(".", 1)
        state.setdefault(int(parameter), {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
