"""Convolution and batch normalisation as one compute the same, and each weight is rounded once."""

import torch
from torch import Tensor, nn

from cascade_rt.models.blocks import conv_block
from cascade_rt_export.batch_norms import with_folded_norms


def trained_block() -> nn.Sequential:
    """A block whose normalisation has seen data."""
    torch.manual_seed(1)
    block = conv_block(3, 8, 5, "batch")
    norm = block[1]
    assert isinstance(norm, nn.BatchNorm2d)
    for tensor in (norm.weight.data, norm.running_var):
        assert isinstance(tensor, Tensor)
        tensor.uniform_(0.01, 3.0)
    nn.init.normal_(norm.bias)
    assert norm.running_mean is not None
    norm.running_mean.normal_(0.0, 5.0)
    return block.eval()


def test_the_folded_network_computes_the_same() -> None:
    block, image = trained_block(), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(with_folded_norms(block)(image), block(image), rtol=1e-5, atol=1e-5)


def test_each_weight_is_the_nearest_float32_to_the_exact_one() -> None:
    block = trained_block()
    convolution, norm = block[0].double(), block[1].double()
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    exact = convolution.weight * scale.reshape(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
    folded = with_folded_norms(block.float())[0]
    assert torch.equal(folded.weight, exact[0].float())
    assert torch.equal(folded.bias, exact[1].float())


def test_the_network_itself_is_not_changed() -> None:
    block = trained_block()
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    with_folded_norms(block)
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())


def test_other_normalisations_stay() -> None:
    block = conv_block(4, 8, 3, "instance")
    assert [type(part) for part in with_folded_norms(block)] == [nn.Conv2d, nn.InstanceNorm2d, nn.ReLU]
