"""A model's weights as a safetensors file."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

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
    model = CascadeModel(config)
    try:
        model.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise BundleError(f"{path}: is not a safetensors file ({error}); export the bundle again") from error
    except RuntimeError as error:
        raise BundleError(f"{path}: holds the weights of another network; export the bundle again") from error
    return model.eval()
