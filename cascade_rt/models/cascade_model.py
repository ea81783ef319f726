"""The two networks and the saliency module as one trainable model, and the two graphs it is deployed as."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascade_rt.config import CascadeConfig
from cascade_rt.models.crop import Box
from cascade_rt.models.multiscale_unet import MultiscaleUNet
from cascade_rt.models.saliency import SaliencyModule
from cascade_rt.models.stage2 import build_stage2


class OrganPass(NamedTuple):
    """What stage 1 makes of a batch of slices, each `[batch, 1, row, col]`."""

    image: Tensor
    """The windowed image, in [0, 1]."""
    logits: Tensor | None
    """None without a stage-1 network."""
    prob: Tensor
    """1 everywhere without a stage-1 network, so that stage 2 sees whole slices."""


class CascadeModel(nn.Module):
    """Stage 1, saliency and stage 2, as far as the config has them. The crop between them is planned in numpy."""

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__()
        self.config = config
        has_stage1 = config.stage1 != "none"
        self.stage1 = MultiscaleUNet(config.stage1_width, config.norm, config.bottleneck) if has_stage1 else None
        self.saliency = SaliencyModule(config.saliency_channels) if config.saliency else None
        self.stage2 = build_stage2(config)

    def window(self, hu: Tensor) -> Tensor:
        """Map Hounsfield units to [0, 1], clamped."""
        low, high = self.config.window_hu
        return torch.clamp((hu - low) / (high - low), 0.0, 1.0)

    def find_organ(self, hu: Tensor) -> OrganPass:
        """Run stage 1 on Hounsfield units `[batch, 1, row, col]`, sides multiples of `config.stage1_side_multiple`."""
        image = self.window(hu)
        if self.stage1 is None:
            return OrganPass(image, None, torch.ones_like(image))
        logits = self._organ_logits(self.stage1, image)
        # In float32 also where the network runs in bfloat16, which knows no number between 0.498 and 0.5.
        return OrganPass(image, logits, torch.sigmoid(logits.float()))

    def _organ_logits(self, stage1: nn.Module, image: Tensor) -> Tensor:
        """Stage 1 on the image, or on the means of its `stage1_stride` x `stage1_stride` pixels."""
        stride = self.config.stage1_stride
        if stride == 1:
            logits: Tensor = stage1(image)
            return logits
        coarse: Tensor = stage1(F.avg_pool2d(image, stride))
        return F.interpolate(coarse, scale_factor=float(stride), mode="bilinear", align_corners=False)

    def salient(self, organ: OrganPass) -> Tensor:
        """What stage 2 is shown of the slices: the image, times its saliency where the cascade has one."""
        if self.saliency is None:
            return organ.image
        salient: Tensor = self.saliency(organ.image, organ.prob)
        return salient

    def find_tumor(
        self, organ: OrganPass, slices: Sequence[int], boxes: Sequence[Box], *, use_saliency: bool
    ) -> list[Tensor]:
        """Run stage 2 on crops of the salient image.

        Args:
            organ: What stage 1 made of the batch.
            slices: For each crop, the slice of the batch it is cut from.
            boxes: For each crop its box; all of one size, all inside the image.
            use_saliency: Off, the plain image is cropped and no gradient reaches stage 1 (step S).

        Returns:
            The logit maps of stage 2, coarse to fine, `[crop, 1, row, col]`; the last has the size of the boxes.
        """
        salient = self.salient(organ) if use_saliency else organ.image
        crops = [salient[(index, slice(None), *box.slices)] for index, box in zip(slices, boxes, strict=True)]
        return tumor_maps(self.stage2, torch.stack(crops))


def tumor_maps(stage2: nn.Module, salient: Tensor) -> list[Tensor]:
    """Run a stage-2 network on crops `[crop, 1, row, col]`: logit maps, coarse to fine; the last has their size."""
    maps: Tensor | list[Tensor] = stage2(salient)
    return maps if isinstance(maps, list) else [maps]


def paste_crops(crops: Tensor, slices: Sequence[int], boxes: Sequence[Box], frames: Tensor) -> Tensor:
    """Put crops back in their places in empty frames; the gradient goes back the same way.

    Args:
        crops: `[crop, 1, row, col]`.
        slices: For each crop, the slice of the batch it was cut from.
        boxes: For each crop its box, as it was cut.
        frames: `[batch, 1, row, col]`, for its shape and device.

    Returns:
        `[batch, 1, row, col]`, of the type of the crops, 0 outside the boxes.
    """
    pasted = torch.zeros_like(frames, dtype=crops.dtype)
    for patch, index, box in zip(crops, slices, boxes, strict=True):
        pasted[(index, slice(None), *box.slices)] = patch
    return pasted


class Stage1Graph(nn.Module):
    """Stage 1 as it is deployed: from Hounsfield units to all that the glue and stage 2 need."""

    def __init__(self, model: CascadeModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, hu: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run on `[batch, 1, row, col]`.

        Returns:
            `organ_prob` `[batch, 1, row, col]`, its maxima `row_max` `[batch, row]` and `col_max` `[batch, col]`,
            and `salient` `[batch, 1, row, col]`, the windowed image times its saliency.
        """
        organ = self.model.find_organ(hu)
        row_max, col_max = organ.prob.amax(dim=(1, 3)), organ.prob.amax(dim=(1, 2))
        return organ.prob, row_max, col_max, self.model.salient(organ)


class Stage2Graph(nn.Module):
    """Stage 2 as it is deployed: the finest output as a probability."""

    def __init__(self, model: CascadeModel) -> None:
        super().__init__()
        self.stage2 = model.stage2

    def forward(self, salient: Tensor) -> Tensor:
        """Salient crop `[batch, 1, row, col]` to `tumor_prob` of the same shape."""
        return torch.sigmoid(tumor_maps(self.stage2, salient)[-1])
