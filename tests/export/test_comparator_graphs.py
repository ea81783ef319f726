"""Every comparator network becomes a dynamic graph that computes what PyTorch computes."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

from cascade_rt.bundles.graph_checks import check_graph
from cascade_rt.common.tensors import STAGE_SPECS
from cascade_rt.common.tolerances import PARITY_LIMITS
from cascade_rt.config import COMPARATORS, Comparator
from cascade_rt.data.phantom import make_phantom
from cascade_rt.models.blocks import Norm
from cascade_rt.models.comparators import NORMS, build_comparator
from cascade_rt_export.conv_work import half_share
from cascade_rt_export.half_precision import half_precision_graph
from cascade_rt_export.onnx_graph import onnx_from_graph
from cascade_rt_export.parity import BATCH_SIZES

SIDES = ((64, 64), (96, 160), (128, 80))
NATIVE: dict[Comparator, Norm] = {"dynamic_unet": "instance"}
"""Where the norm that is exported here is not `batch`."""


class Probability(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crop: Tensor) -> Tensor:
        return torch.sigmoid(self.network(crop))


def lively(name: Comparator, norm: Norm) -> nn.Module:
    """A network whose normalisations have something to compute and whose output is far from constant."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        graph = Probability(build_comparator(name, 8, norm)).train()
        for module in graph.modules():
            if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm) and module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            graph(torch.rand(4, 1, 64, 64))
    return graph.eval()


def crops() -> Iterator[Tensor]:
    """Noise, and noisy phantom slices, windowed."""
    random = torch.Generator().manual_seed(0)
    slices = torch.from_numpy(make_phantom(20_000, (8, 256, 256)).hu.astype(np.float32))[:, None]
    for batch in BATCH_SIZES:
        for rows, cols in SIDES:
            noise = torch.rand(batch, 1, rows, cols, generator=random)
            yield noise
            yield ((slices[2 : 2 + batch, :, 80 : 80 + rows, 60 : 60 + cols] + 100) / 340 + noise / 10).clamp(0, 1)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name == "dense_unet" else []) for name in COMPARATORS],
)
def name(request: pytest.FixtureRequest) -> Comparator:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def network(name: Comparator) -> nn.Module:
    return lively(name, NATIVE.get(name, "batch"))


@pytest.fixture(scope="module")
def graph(network: nn.Module) -> ModelProto:
    return onnx_from_graph(network, STAGE_SPECS["stage2"])


def assert_parity(graph: ModelProto, network: nn.Module) -> None:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for crop in crops():
        with torch.inference_mode():
            expected = network(crop).numpy()
        (found,) = session.run(None, {"salient": crop.numpy()})
        assert expected.std() > 0.02
        np.testing.assert_allclose(found, expected, rtol=0, atol=PARITY_LIMITS.max_error)


def test_the_graph_computes_what_pytorch_computes(graph: ModelProto, network: nn.Module) -> None:
    assert_parity(graph, network)


def test_the_full_checker_accepts_the_graph(graph: ModelProto) -> None:
    onnx.checker.check_model(graph, full_check=True)


def test_a_bundle_with_the_graph_would_be_taken(graph: ModelProto) -> None:
    check_graph(graph.SerializeToString(), "exported")


def test_it_is_planned_and_converted_in_half_precision(graph: ModelProto) -> None:
    feeds = {"salient": next(crops()).numpy()}
    half = half_precision_graph(graph, [feeds], source="noise")
    share = half_share(half.graph, feeds)
    assert share is not None
    assert share > 0.9


def test_nothing_in_it_pads_or_asks_for_a_shape(graph: ModelProto) -> None:
    assert not {node.op_type for node in graph.graph.node} & {"Pad", "Shape", "Reshape", "If", "Loop"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm"),
    [(name, norm) for name in COMPARATORS for norm in NORMS[name] if norm != NATIVE.get(name, "batch")],
    scope="function",
)
def test_with_any_other_norm_too(name: Comparator, norm: Norm) -> None:
    network = lively(name, norm)
    graph = onnx_from_graph(network, STAGE_SPECS["stage2"])
    check_graph(graph.SerializeToString(), "exported")
    assert_parity(graph, network)
