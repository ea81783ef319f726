"""Stage 2 takes over what stage 1 has learned (the T of Table 3)."""

import torch
from torch import Tensor

from cascade_rt.errors import UsageError
from cascade_rt.models.cascade_model import CascadeModel


def fitting_weights(model: CascadeModel) -> dict[str, Tensor]:
    """The weights of stage 1 that stage 2 has too, by name and shape.

    A multi-scale U-Net fits whole; of the network with focusing modules the encoder does.

    Raises:
        UsageError: There is no stage 1, or nothing of it fits.
    """
    learned = {} if model.stage1 is None else model.stage1.state_dict()
    own = model.stage2.state_dict()
    fitting = {name: tensor for name, tensor in learned.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise UsageError(
            f"train.transfer must be false for stage 1 {model.config.stage1!r} and stage 2 {model.config.stage2!r}: "
            "they have no weights in common"
        )
    return fitting


def transfer_stage1(model: CascadeModel) -> None:
    """Copy into stage 2 what fits of stage 1; raises like `fitting_weights`."""
    own = model.stage2.state_dict()
    with torch.no_grad():
        for name, tensor in fitting_weights(model).items():
            own[name].copy_(tensor)
