"""Stage 1 on means of 2 x 2 pixels: a quarter of the work, the same images in and out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cascade_rt.config import CascadeConfig
from cascade_rt.engines import Engines
from cascade_rt.engines.pytorch import PyTorchEngine
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.run.scan_run import segment_voxels

CONFIG = CascadeConfig(base_width=8, stage1_stride=2, window_hu=(0.0, 200.0))


class Recorder(nn.Module):
    """A stage 1 that keeps what it sees and returns a ramp along the columns."""

    def forward(self, image: Tensor) -> Tensor:
        self.seen = image
        return torch.arange(image.shape[3]).float().expand_as(image)


def model(config: CascadeConfig = CONFIG) -> CascadeModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return CascadeModel(config).eval()


def test_stage_1_sees_the_means_of_the_windowed_pixels() -> None:
    cascade, stage1 = model(), Recorder()
    cascade.stage1 = stage1  # type: ignore[assignment]
    hu = torch.tensor([[0.0, 100.0], [400.0, -50.0]]).repeat(32, 32)[None, None]
    organ = cascade.find_organ(hu)
    # 400 HU is clamped to 1 and -50 HU to 0 before the mean is taken.
    assert torch.allclose(stage1.seen, torch.full((1, 1, 32, 32), (0 + 0.5 + 1 + 0) / 4))
    assert organ.image.shape == organ.prob.shape == hu.shape


def test_logits_lie_between_those_of_the_coarse_pixels_around_them() -> None:
    cascade = model()
    cascade.stage1 = Recorder()  # type: ignore[assignment]
    logits = cascade.find_organ(torch.zeros(1, 1, 64, 64)).logits
    assert logits is not None
    # The middles of two fine pixels lie a quarter of a coarse one to the left and right of its middle.
    assert torch.allclose(logits[0, 0, 0, 1:-1], (torch.arange(64)[1:-1] - 0.5) / 2)


def test_stage_1_has_the_same_weights_whatever_its_grid() -> None:
    fine = model(replace(CONFIG, stage1_stride=1))
    assert fine.state_dict().keys() == model().state_dict().keys()


@pytest.mark.parametrize(("stride", "multiple"), [(1, 16), (2, 32)])
def test_slices_of_any_size_are_padded_to_sides_that_stage_1_takes(stride: int, multiple: int) -> None:
    config = replace(CONFIG, stage1_stride=stride)  # type: ignore[arg-type]
    cascade = model(config)
    engines = Engines(PyTorchEngine(cascade, "stage1"), PyTorchEngine(cascade, "stage2"))
    voxels = np.random.default_rng(0).integers(-100, 300, (2, 80, 100)).astype(np.int16)
    run = segment_voxels(engines, config, voxels, None)
    assert run.mask.shape == voxels.shape
    assert config.stage1_side_multiple == multiple
