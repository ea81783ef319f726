"""Checkpoints are safetensors, whole, and refused when they are anything else."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cascade_rt.config import CascadeConfig
from cascade_rt.errors import BundleError
from cascade_rt.training.checkpoint import (
    FILE_NAME,
    FORMAT,
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    save_checkpoint,
)


def test_what_was_saved_is_loaded(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / FILE_NAME)
    again = load_checkpoint(tmp_path)
    assert (again.cascade, again.train, again.data) == (checkpoint.cascade, checkpoint.train, checkpoint.data)
    assert all(torch.equal(again.model[name], tensor) for name, tensor in checkpoint.model.items())


def test_the_model_of_a_checkpoint_is_ready_to_run(checkpoint: Checkpoint) -> None:
    model = checkpoint.build_model()
    assert not model.training


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimiser_restored_steps_like_the_one_saved(kind: type[torch.optim.Optimizer]) -> None:
    def step(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> None:
        weight.grad = weight.detach() * 2 + 1
        optimizer.step()

    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    first = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([first], lr=0.1, **options)  # type: ignore[call-arg]
    step(optimizer, first)
    second = torch.nn.Parameter(first.detach().clone())
    restored = kind([second], lr=0.1, **options)  # type: ignore[call-arg]
    restore_optimizer(restored, {name: tensor.clone() for name, tensor in flatten_optimizer(optimizer).items()})
    step(optimizer, first)
    step(restored, second)
    assert torch.equal(first, second)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such checkpoint; choose a run folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("progress", ["", "[]", "{}", '{"cascade": {"base_width": "8"}}'])
def test_a_checkpoint_without_readable_progress_is_refused(tmp_path: Path, progress: str) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / FILE_NAME, metadata={"format": FORMAT, "progress": progress})
    with pytest.raises(BundleError, match="its progress cannot be read"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(BundleError, match="its weights do not match its config"):
        replace(checkpoint, cascade=CascadeConfig(base_width=16)).build_model()


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    path = tmp_path / FILE_NAME
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BundleError, match="is not a safetensors file"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_a_torch_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(BundleError, match="is not a safetensors file"):
        load_checkpoint(path)


def test_a_checkpoint_of_an_earlier_format_is_refused(tmp_path: Path) -> None:
    """Its config says nothing of the losses that came later, and their defaults would be a false record."""
    save_file({"weight": torch.ones(2)}, tmp_path / FILE_NAME, metadata={"format": "cascade-rt checkpoint 1"})
    with pytest.raises(BundleError, match="is not a training checkpoint of this version"):
        load_checkpoint(tmp_path)


def test_safetensors_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / FILE_NAME)
    with pytest.raises(BundleError, match=r"is not a training checkpoint of this version .*; choose a run folder"):
        load_checkpoint(tmp_path)
