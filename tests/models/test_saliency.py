"""The salient change module starts as the identity and is the only way back from stage 2 to stage 1."""

import torch

from cascade_rt.config import CascadeConfig
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.models.crop import Box
from cascade_rt.models.saliency import SaliencyModule


def stage1_gradients(*, use_saliency: bool, trained: bool) -> list[torch.Tensor | None]:
    """Gradients that a loss on stage 2 alone leaves on the weights of stage 1."""
    torch.manual_seed(0)
    model = CascadeModel(CascadeConfig(base_width=8))
    if trained:
        torch.nn.init.normal_(model.saliency.conv5.weight)
    organ = model.find_organ(torch.randn(2, 1, 64, 64) * 100)
    outputs = model.find_tumor(organ, [0, 1], [Box(0, 0, 64, 64)] * 2, use_saliency=use_saliency)
    outputs[-1].square().mean().backward()
    return [parameter.grad for parameter in model.stage1.parameters()]


def test_is_the_identity_at_initialisation() -> None:
    image, prob = torch.rand(2, 1, 32, 48), torch.rand(2, 1, 32, 48)
    torch.testing.assert_close(SaliencyModule(1)(image, prob), image)


def test_weighs_the_image_once_it_has_learned() -> None:
    saliency = SaliencyModule(4)
    torch.nn.init.normal_(saliency.conv5.weight)
    image, prob = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    assert not torch.allclose(saliency(image, prob), image)


def test_stage2_loss_reaches_stage1_through_the_saliency() -> None:
    gradients = stage1_gradients(use_saliency=True, trained=True)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients if gradient is not None)
    assert any(gradient is not None for gradient in gradients)


def test_stage2_loss_does_not_reach_stage1_with_the_saliency_off() -> None:
    assert all(gradient is None for gradient in stage1_gradients(use_saliency=False, trained=True))


def test_at_initialisation_the_gradient_through_the_saliency_is_zero() -> None:
    gradients = stage1_gradients(use_saliency=True, trained=False)
    assert all(gradient is None or gradient.abs().sum() == 0 for gradient in gradients)
