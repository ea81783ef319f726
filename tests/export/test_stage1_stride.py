"""A stage 1 at a coarser grid is the same graph in and out, and computes what PyTorch computes."""

import numpy as np
import pytest
import torch
from onnx import ModelProto

from cascade_rt.config import CascadeConfig
from cascade_rt.engines.pytorch import PyTorchEngine
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt_export.cpu_session import cpu_session
from cascade_rt_export.onnx_graph import onnx_from_stage


@pytest.fixture(scope="module")
def model() -> CascadeModel:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return CascadeModel(CascadeConfig(base_width=8, stage1_stride=2)).eval()


@pytest.fixture(scope="module")
def graph(model: CascadeModel) -> ModelProto:
    return onnx_from_stage(model, "stage1")


@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 128, 160)])
def test_the_graph_of_stage_1_at_half_the_pixels_is_the_model(
    graph: ModelProto, model: CascadeModel, shape: tuple[int, int, int]
) -> None:
    batch, rows, cols = shape
    hu = np.random.default_rng(0).normal(50, 100, (batch, 1, rows, cols)).astype(np.float32)
    expected = PyTorchEngine(model, "stage1").run({"hu": hu})
    session = cpu_session(graph)
    found = dict(zip((output.name for output in session.get_outputs()), session.run(None, {"hu": hu}), strict=True))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() < 1e-5, name
