"""The comparator networks are alike from outside: one image in, one logit map out, every weight of use."""

import sys

import pytest
import torch
from safetensors.torch import save
from torch import nn

from cascade_rt.config import COMPARATORS, Comparator
from cascade_rt.errors import BackendUnavailableError, UsageError
from cascade_rt.models.blocks import Norm
from cascade_rt.models.comparators import NORMS, build_comparator

PARAMETERS = {
    "unet": 487_505,
    "unet_plus_plus": 571_297,
    "attention_unet": 498_101,
    "residual_unet": 408_022,
    "dense_unet": 256_729,
    "dynamic_unet": 486_409,
}


@pytest.fixture(params=COMPARATORS)
def name(request: pytest.FixtureRequest) -> Comparator:
    return request.param  # type: ignore[no-any-return]


def make_network(name: Comparator, norm: Norm = "batch") -> nn.Module:
    torch.manual_seed(0)
    return build_comparator(name, 8, norm)


@pytest.mark.parametrize(("rows", "cols"), [(64, 96), (128, 128), (80, 112)])
def test_logits_have_the_shape_of_the_image(name: Comparator, rows: int, cols: int) -> None:
    with torch.inference_mode():
        logits = make_network(name).eval()(torch.rand(2, 1, rows, cols))
    assert logits.shape == (2, 1, rows, cols)


def test_parameter_counts_at_base_width_8() -> None:
    counts = {name: sum(weight.numel() for weight in make_network(name).parameters()) for name in COMPARATORS}
    assert counts == PARAMETERS


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in COMPARATORS for norm in NORMS[name]])
def test_with_each_norm_every_parameter_gets_a_finite_gradient(name: Comparator, norm: Norm) -> None:
    network = make_network(name, norm).train()
    (network(torch.rand(2, 1, 64, 64)) * torch.randn(2, 1, 64, 64)).sum().backward()
    assert [
        parameter
        for parameter, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all() or not weight.grad.any()
    ] == []


def test_a_slice_does_not_depend_on_the_others_of_its_batch(name: Comparator) -> None:
    network, images = make_network(name).eval(), torch.rand(3, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-5)


def test_its_weights_can_be_stored(name: Comparator) -> None:
    assert save(make_network(name).state_dict())


def test_dynamic_unet_is_not_wider_than_nnunet() -> None:
    with torch.device("meta"):
        network = build_comparator("dynamic_unet", 64, "instance")
    assert max(module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)) == 512


def test_a_norm_that_the_network_cannot_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cascade\.norm of attention_unet must be batch, got 'group'"):
        build_comparator("attention_unet", 8, "group")


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(UsageError, match=r"comparator must be one of unet, .*, got 'resnet50'"):
        build_comparator("resnet50", 8, "batch")  # type: ignore[arg-type]


def test_without_monai_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(BackendUnavailableError, match=r"\(monai\); run: pip install .*'monai>="):
        build_comparator("unet", 8, "batch")
