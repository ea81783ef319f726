"""The two networks and the saliency module as one trainable model, and the two graphs that are deployed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cascade_rt.config import CascadeConfig
from cascade_rt.models.crop import Box
from cascade_rt.models.hu_window import apply_window
from cascade_rt.models.multiscale_unet import MultiscaleUNet
from cascade_rt.models.saliency import SaliencyModule
from cascade_rt.models.stage2 import build_stage2


class OrganPass(NamedTuple):
    """Output of stage 1 for a batch of slices; each tensor is `[batch, 1, row, col]`."""

    image: Tensor
    """The windowed image, in [0, 1]."""
    logits: Tensor | None
    """None without a stage-1 network."""
    prob: Tensor
    """1 everywhere without a stage-1 network, so that stage 2 sees whole slices."""


class CascadeModel(nn.Module):
    """Stage 1, saliency and stage 2, as configured. The crop between the stages is planned in numpy."""

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__()
        self.config = config
        has_stage1 = config.stage1 != "none"
        self.stage1 = MultiscaleUNet(config.stage1_width, config.norm, config.bottleneck) if has_stage1 else None
        self.saliency = SaliencyModule(config.saliency_channels) if config.saliency else None
        self.stage2 = build_stage2(config)

    def find_organ(self, hu: Tensor) -> OrganPass:
        """Run stage 1 on Hounsfield units.

        Args:
            hu: `[batch, 1, row, col]`; row and col are multiples of `config.stage1_side_multiple`.
        """
        image = apply_window(hu, self.config.window_hu)
        if self.stage1 is None:
            return OrganPass(image, None, torch.ones_like(image))
        logits = self._organ_logits(self.stage1, image)
        # In float32 even if the network runs in bfloat16, which has no values between 0.498 and 0.5.
        return OrganPass(image, logits, torch.sigmoid(logits.float()))

    def _organ_logits(self, stage1: nn.Module, image: Tensor) -> Tensor:
        """Run stage 1 on the image, average-pooled by `stage1_stride`, and upsample the logits to full resolution."""
        stride = self.config.stage1_stride
        if stride == 1:
            logits: Tensor = stage1(image)
            return logits
        coarse: Tensor = stage1(F.avg_pool2d(image, stride))
        return F.interpolate(coarse, scale_factor=float(stride), mode="bilinear", align_corners=False)

    def salient(self, organ: OrganPass) -> Tensor:
        """Return the input image of stage 2: the windowed image, multiplied by its saliency if the cascade uses it."""
        if self.saliency is None:
            return organ.image
        salient: Tensor = self.saliency(organ.image, organ.prob)
        return salient

    def find_tumor(
        self, organ: OrganPass, slices: Sequence[int], boxes: Sequence[Box], *, use_saliency: bool
    ) -> list[Tensor]:
        """Run stage 2 on crops of the salient image.

        Args:
            organ: Output of stage 1 for the batch.
            slices: For each crop, the index of its slice in the batch.
            boxes: For each crop, its box. All boxes have the same size and lie inside the image.
            use_saliency: If false, the plain image is cropped and no gradient reaches stage 1 (step S).

        Returns:
            The logit maps of stage 2, coarse to fine, `[crop, 1, row, col]`; the last has the size of the boxes.
        """
        salient = self.salient(organ) if use_saliency else organ.image
        crops = [salient[(index, slice(None), *box.slices)] for index, box in zip(slices, boxes, strict=True)]
        return tumor_maps(self.stage2, torch.stack(crops))


def tumor_maps(stage2: nn.Module, salient: Tensor) -> list[Tensor]:
    """Run a stage-2 network on crops.

    Args:
        stage2: The network.
        salient: Crops `[crop, 1, row, col]`.

    Returns:
        Logit maps, coarse to fine; the last has the size of the crops.
    """
    maps: Tensor | list[Tensor] = stage2(salient)
    return maps if isinstance(maps, list) else [maps]


def paste_crops(crops: Tensor, slices: Sequence[int], boxes: Sequence[Box], frames: Tensor) -> Tensor:
    """Paste crops back to their positions in empty frames. The operation is differentiable.

    Args:
        crops: `[crop, 1, row, col]`.
        slices: For each crop, the index of its slice in the batch.
        boxes: For each crop, the box it was cropped with.
        frames: `[batch, 1, row, col]`; only its shape and device are used.

    Returns:
        `[batch, 1, row, col]` in the dtype of the crops, 0 outside the boxes.
    """
    pasted = torch.zeros_like(frames, dtype=crops.dtype)
    for patch, index, box in zip(crops, slices, boxes, strict=True):
        pasted[(index, slice(None), *box.slices)] = patch
    return pasted


class Stage1Graph(nn.Module):
    """Stage 1 as deployed: from Hounsfield units to everything that the glue and stage 2 need."""

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
    """Stage 2 as deployed: the finest output as a probability."""

    def __init__(self, model: CascadeModel) -> None:
        super().__init__()
        self.stage2 = model.stage2

    def forward(self, salient: Tensor) -> Tensor:
        """Compute `tumor_prob` from a salient crop; both are `[batch, 1, row, col]`."""
        return torch.sigmoid(tumor_maps(self.stage2, salient)[-1])
