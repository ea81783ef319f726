"""Load the weights that a training run can start from or that can be exported."""

import os
from dataclasses import replace
from typing import Any

from cascade_rt.bundles.bundle import Bundle, is_bundle, read_bundle
from cascade_rt.common.arguments import as_path
from cascade_rt.config import CascadeConfig, TrainConfig, from_mapping, to_mapping
from cascade_rt.errors import BundleError, UsageError
from cascade_rt.models.weights import load_model
from cascade_rt.training.checkpoint import Checkpoint, load_checkpoint

_AFTER_STAGE_1 = frozenset({"target", "islands", "least_island_ml"})


def load_initial(path: str | os.PathLike[str]) -> Checkpoint:
    """Read trained weights from a run folder, a checkpoint or a bundle.

    Raises:
        BundleError: The path is none of these, or its version is not supported.
    """
    path = as_path("path", path)
    return _checkpoint_of(read_bundle(path)) if is_bundle(path) else load_checkpoint(path)


def join_stages(stage1: Checkpoint, stage2: Checkpoint) -> Checkpoint:
    """Join stage 1 and saliency of one run with stage 2 of another, so that step S can be trained as two parallel runs.

    The target of stage 2 and the island settings may differ, because stage 1 does not depend on them.

    Raises:
        UsageError: The runs have different cascades.
    """
    if _shared(stage1.cascade) != _shared(stage2.cascade):
        raise UsageError("stage 1 and stage 2 come from runs of different cascades; train both with the same [cascade]")
    taken = {name: tensor for name, tensor in stage2.model.items() if name.startswith("stage2.")}
    return replace(
        stage1,
        data=f"{stage1.data} (stage 1), {stage2.epochs_done} epochs on {stage2.data} (stage 2)",
        model={**stage1.model, **taken},
        optimizer={},
    )


def _shared(config: CascadeConfig) -> dict[str, Any]:
    """Return the config without the settings that do not affect stage 1."""
    return {name: value for name, value in to_mapping(config).items() if name not in _AFTER_STAGE_1}


def _checkpoint_of(bundle: Bundle) -> Checkpoint:
    """Convert a bundle to the final checkpoint of its run, without optimizer state."""
    training, cascade = bundle.manifest.training, bundle.manifest.config
    try:
        return Checkpoint(
            cascade=cascade,
            train=from_mapping(TrainConfig, training["config"], "training.config"),
            data=training["data"],
            epochs_done=training["epochs"],
            model=load_model(bundle).state_dict(),
            optimizer={},
            history=tuple(training.get("history", ())),
        )
    except (KeyError, UsageError) as error:
        raise BundleError(f"{bundle.path}: does not record its training ({error}); choose a run folder") from error
