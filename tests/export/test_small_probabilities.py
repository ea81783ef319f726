"""Where a rounding of 1e-7 can grow to 1e-4 behind a normalisation, the graphs are exact on ONNX Runtime too."""

from collections.abc import Callable

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascade_rt.models.focusing import split, upsample
from cascade_rt_export.onnx_graph import quiet_exporter


class Graph(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image)


def on_onnxruntime(function: Callable[[Tensor], Tensor], image: Tensor) -> np.ndarray:
    with quiet_exporter():
        program = torch.onnx.export(Graph(function).eval(), (image,), dynamo=True, opset_version=18, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]


def test_a_faint_foreground_keeps_its_digits() -> None:
    logits = torch.linspace(-20, 0, 64).reshape(1, 1, 8, 8)
    expected = torch.sigmoid(logits.double()).numpy()
    np.testing.assert_allclose(on_onnxruntime(lambda image: split(image)[0], logits), expected, rtol=2e-6)


def test_upsampling_rounds_no_position() -> None:
    image = torch.randn(1, 4, 64, 32, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(image.double(), scale_factor=2.0, mode="bilinear", align_corners=True).numpy()
    np.testing.assert_allclose(on_onnxruntime(upsample, image), expected, atol=1e-6)
