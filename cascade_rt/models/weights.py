"""Saving and loading of model weights as safetensors."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.config import CascadeConfig
from cascade_rt.errors import BundleError
from cascade_rt.models.cascade_model import CascadeModel


def save_weights(model: CascadeModel, path: Path) -> None:
    """Write all weights and running statistics of a model to a file."""
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def load_model(bundle: Bundle) -> CascadeModel:
    """Build the model of a bundle and load its weights, in evaluation mode.

    Raises:
        BundleError: The weights are not the exported ones, are damaged, or belong to another network.
    """
    return load_weights(bundle.weights.read_bytes(), bundle.manifest.config, str(bundle.weights))


def load_weights(content: bytes, config: CascadeConfig, source: str) -> CascadeModel:
    """Build the model of a config and load its weights, in evaluation mode.

    Args:
        content: A safetensors file.
        config: The model's config.
        source: Name of the file, for messages.

    Raises:
        BundleError: The file is damaged, or contains the weights of another network.
    """
    try:
        weights = load(content)
    except SafetensorError as error:
        raise BundleError(f"{source}: is not a safetensors file ({error}); export the bundle again") from error
    # The model's first layers have base_width channels. Check this before building it, because a config that claims a
    # wider network than the file contains could exhaust the memory.
    widest = max((max(tensor.shape, default=0) for tensor in weights.values()), default=0)
    if max(config.base_width, config.stage1_width) > widest:
        raise _other_network(source)
    return fill_weights(CascadeModel(config), weights, source)


def fill_weights(model: CascadeModel, weights: Mapping[str, Tensor], source: str) -> CascadeModel:
    """Load weights into a model and set it to evaluation mode. Raises BundleError if they are of another network."""
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise _other_network(source) from error
    return model.eval()


def _other_network(source: str) -> BundleError:
    return BundleError(f"{source}: its weights do not match its config; export the bundle again")
