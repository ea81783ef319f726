"""A run starts from the weights of a run or of a bundle, and says so."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.errors import BundleError, UsageError
from cascade_rt.training.checkpoint import FILE_NAME, Checkpoint, save_checkpoint
from cascade_rt.training.initial import join_stages, load_initial


def test_a_bundle_gives_its_weights() -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    initial, weights = load_initial(bundle.path), load_file(bundle.weights)
    assert initial.model.keys() == weights.keys()
    assert all(torch.equal(initial.model[name], tensor) for name, tensor in weights.items())


def test_a_bundle_gives_what_it_was_trained_on() -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    initial = load_initial(bundle.path)
    training = bundle.manifest.training
    assert (initial.cascade, initial.data) == (bundle.manifest.config, training["data"])
    assert (initial.epochs_done, list(initial.history)) == (training["epochs"], training["history"])


def test_the_folder_of_a_run_gives_its_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / FILE_NAME)
    assert load_initial(tmp_path).data == checkpoint.data


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(embedded_bundle_path("phantom"), tmp_path / "bundle"))
    (copy / "weights.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        load_initial(copy)


def other_run(checkpoint: Checkpoint) -> Checkpoint:
    """A run of the same cascade that has learnt something else."""
    moved = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in checkpoint.model.items()}
    return replace(checkpoint, data="other weights", epochs_done=3, model=moved)


def test_stages_of_two_runs_are_joined(checkpoint: Checkpoint) -> None:
    other = other_run(checkpoint)
    joined = join_stages(checkpoint, other)
    for name, tensor in joined.model.items():
        source = other if name.startswith("stage2.") else checkpoint
        assert torch.equal(tensor, source.model[name]), name
    assert joined.data == "random weights (stage 1), 3 epochs on other weights (stage 2)"


def test_stages_of_different_cascades_are_not_joined(checkpoint: Checkpoint) -> None:
    other = replace(checkpoint, cascade=replace(checkpoint.cascade, window_hu=(0.0, 240.0)))
    with pytest.raises(UsageError, match="runs of different cascades"):
        join_stages(checkpoint, other)


def test_stages_of_a_pancreas_run_and_a_tumor_run_can_be_joined(checkpoint: Checkpoint) -> None:
    for_pancreas = replace(checkpoint.cascade, target="organ", islands="largest", least_island_ml=2.0)
    other = other_run(checkpoint)
    joined = join_stages(replace(checkpoint, cascade=for_pancreas), other)
    assert joined.cascade == for_pancreas
    assert torch.equal(
        joined.model["stage2.encoder.blocks.0.branch1.0.0.weight"],
        other.model["stage2.encoder.blocks.0.branch1.0.0.weight"],
    )
