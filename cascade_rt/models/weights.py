"""A model's weights as a safetensors file."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cascade_rt.config import CascadeConfig
from cascade_rt.errors import BundleError
from cascade_rt.models.cascade_model import CascadeModel


def save_weights(model: CascadeModel, path: Path) -> None:
    """Write all weights and running statistics of a model."""
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def load_weights(path: Path, config: CascadeConfig) -> CascadeModel:
    """Build the model of a config and fill it, in evaluation mode.

    Raises:
        BundleError: The file is damaged, or holds the weights of another network.
    """
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise BundleError(f"{path}: is not a safetensors file ({error}); export the bundle again") from error
    return fill_weights(CascadeModel(config), weights, os.fspath(path))


def fill_weights(model: CascadeModel, weights: Mapping[str, Tensor], source: str) -> CascadeModel:
    """Fill a model, which then is in evaluation mode; BundleError where the weights are those of another network."""
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise BundleError(f"{source}: holds the weights of another network than its config says") from error
    return model.eval()
