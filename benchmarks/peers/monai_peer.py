"""Peer (c): MONAI's transforms around the same PyTorch networks, as its bundles are put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImage,
    ScaleIntensityRanged,
)
from torch import Tensor

from benchmarks.peers.common import PANCREAS, THRESHOLD, TUMOR, check_sides, find_crop, open_bundle, write_lesions
from cascade_rt.common.timing import Stopwatch
from cascade_rt.models.weights import load_model

SLICES = 4
"""Slices of a batch, MONAI's usual `sw_batch_size`."""


class MonaiScript:
    """Segments a scan between transforms and their inversion, on the GPU where PyTorch finds one."""

    def __init__(self, bundle_path: Path) -> None:
        bundle = open_bundle(bundle_path)
        config = bundle.manifest.config
        self._crop = config.crop
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_model(bundle).to(self._device)
        low, high = config.window_hu
        self._before = Compose(
            [
                LoadImaged("image", image_only=True),
                EnsureChannelFirstd("image"),
                Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
                ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True),
            ]
        )
        self._after = Invertd("mask", transform=self._before, orig_keys="image", nearest_interp=True)
        self._save = SaveImage(output_ext=".nii.gz", output_dtype=np.uint8, resample=False, print_log=False)

    @property
    def description(self) -> Mapping[str, Any]:
        """What computes."""
        version = f"{monai.__version__}, torch {torch.__version__}"
        return {"backend": "monai transforms, pytorch", "precision": "fp32", "device": self._device, "version": version}

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        """Segment a scan; returns the seconds of each step."""
        watch = Stopwatch()
        with watch.step("load"):
            data = self._before({"image": str(scan)})
        with watch.step("preprocess"):
            # [channel, left, posterior, superior] to [slice, channel, row, col].
            images = data["image"].as_tensor().permute(3, 0, 2, 1).contiguous()
        check_sides(images[:, 0].numpy(), self._crop)
        labels = np.zeros((len(images), *images.shape[2:]), dtype=np.uint8)
        with torch.inference_mode():
            for first in range(0, len(images), SLICES):
                self._segment_block(images[first : first + SLICES], labels[first : first + SLICES], watch)
        with watch.step("measure"):
            write_lesions(labels, np.asarray(data["image"].affine), mask)
        with watch.step("save"):
            found = torch.from_numpy(labels).permute(2, 1, 0)[None]
            data["mask"] = MetaTensor(found, affine=data["image"].affine)
            # The ending is added again.
            self._save(self._after(data)["mask"], filename=str(mask).removesuffix(".nii.gz"))
        return watch.seconds

    def _segment_block(self, images: Tensor, labels: np.ndarray, watch: Stopwatch) -> None:
        with watch.step("stage1"):
            on_device = images.to(self._device)
            organ_prob = torch.sigmoid(self._model.stage1(on_device))
            salient = self._model.saliency(on_device, organ_prob)
            probs = organ_prob[:, 0].cpu().numpy()
        with watch.step("paste"):
            labels[probs >= THRESHOLD] = PANCREAS
        for index, prob in enumerate(probs):
            with watch.step("crop"):
                place = find_crop(prob, self._crop)
            if place is None:
                continue
            with watch.step("stage2"):
                maps = self._model.stage2(salient[index : index + 1, :, place[0], place[1]])
                tumor = torch.sigmoid(maps[-1])[0, 0].cpu().numpy()
            with watch.step("paste"):
                labels[index][place][tumor >= THRESHOLD] = TUMOR
