"""What a training run may start from, and what can be exported."""

from pathlib import Path

from cascade_rt.bundle import Bundle, read_bundle
from cascade_rt.bundle_files import MANIFEST_NAME
from cascade_rt.config import TrainConfig, from_mapping
from cascade_rt.errors import BundleError, UsageError
from cascade_rt.models.weights import load_model
from cascade_rt.training.checkpoint import Checkpoint, load_checkpoint


def load_initial(path: Path) -> Checkpoint:
    """Read trained weights: those of a run's folder, of a checkpoint or of a bundle.

    Raises:
        BundleError: It is none of them, or of another version.
    """
    return _checkpoint_of(read_bundle(path)) if (path / MANIFEST_NAME).is_file() else load_checkpoint(path)


def _checkpoint_of(bundle: Bundle) -> Checkpoint:
    """A bundle as the end of the run it was exported from, without the state of its optimiser."""
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
        raise BundleError(f"{bundle.path}: does not say how it was trained ({error}); name a run folder") from error
