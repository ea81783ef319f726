"""Weight transfer between networks: from stage 1 to stage 2, which is the T of Table 3."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cascade_rt.errors import UsageError
from cascade_rt.models.cascade_model import CascadeModel


def fitting(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that match a model's by name and shape."""
    own = model.state_dict()
    return {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}


def fitting_weights(model: CascadeModel) -> dict[str, Tensor]:
    """Return the weights of stage 1 that match those of stage 2 by name and shape.

    A multi-scale U-Net fits completely. Of the network with focusing modules, only the encoder fits.

    Raises:
        UsageError: Stage 1 does not exist, or none of its weights fits.
    """
    learned = {} if model.stage1 is None else fitting(model.stage1.state_dict(), model.stage2)
    if not learned:
        raise UsageError(
            f"train.transfer must be false for stage 1 {model.config.stage1!r} and stage 2 {model.config.stage2!r}: "
            "they have no weights in common"
        )
    return learned


def transfer_stage1(model: CascadeModel) -> None:
    """Copy the weights of stage 1 that fit into stage 2. Raises like `fitting_weights`."""
    own = model.stage2.state_dict()
    with torch.no_grad():
        for name, tensor in fitting_weights(model).items():
            own[name].copy_(tensor)
