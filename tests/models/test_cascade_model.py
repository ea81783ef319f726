"""Crops go back into the frame as the glue pastes them, and gradients come out the same way."""

import numpy as np
import torch

from cascade_rt.models.cascade_model import paste_crops
from cascade_rt.models.crop import Box, paste

SLICES, BOXES = [2, 0], [Box(4, 8, 6, 5), Box(0, 11, 6, 5)]


def test_crops_are_pasted_as_the_glue_does_it() -> None:
    crops = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    expected = np.zeros((3, 1, 16, 16), dtype=np.float32)
    for patch, index, box in zip(crops.numpy(), SLICES, BOXES, strict=True):
        paste(patch, box, expected[index])
    assert np.array_equal(paste_crops(crops, SLICES, BOXES, torch.ones(3, 1, 16, 16)).numpy(), expected)


def test_crop_pixels_have_the_gradients_of_their_frame_pixels() -> None:
    crops = torch.zeros(2, 1, 6, 5, requires_grad=True)
    weight = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    (paste_crops(crops, SLICES, BOXES, weight) * weight).sum().backward()
    assert crops.grad is not None
    for gradient, index, box in zip(crops.grad, SLICES, BOXES, strict=True):
        assert torch.equal(gradient, weight[(index, slice(None), *box.slices)])
