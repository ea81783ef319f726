"""Peer (a): the script that a careful user writes. nibabel, PyTorch eager in float32, a slice at a time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from benchmarks.peers.common import (
    PANCREAS,
    THRESHOLD,
    TUMOR,
    check_sides,
    find_crop,
    open_bundle,
    save_mask,
    to_slices,
    write_lesions,
)
from cascade_rt.common.timing import Stopwatch
from cascade_rt.models.weights import load_model


class PlainScript:
    """Segments a scan slice by slice, on the GPU where PyTorch finds one."""

    def __init__(self, bundle_path: Path) -> None:
        bundle = open_bundle(bundle_path)
        self._config = bundle.manifest.config
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_model(bundle).to(self._device)

    @property
    def description(self) -> Mapping[str, Any]:
        """What computes."""
        return {"backend": "pytorch eager", "precision": "fp32", "device": self._device, "version": torch.__version__}

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        """Segment a scan; returns the seconds of each step."""
        watch = Stopwatch()
        with watch.step("load"):
            image = nib.load(scan)
            hu = to_slices(image.get_fdata(), image.affine)
        check_sides(hu, self._config.crop)
        with watch.step("preprocess"):
            low, high = self._config.window_hu
            windowed = np.clip((hu - low) / (high - low), 0, 1).astype(np.float32)
        labels = np.zeros(hu.shape, dtype=np.uint8)
        for index in range(len(windowed)):
            self._segment_slice(windowed[index], labels[index], watch)
        with watch.step("measure"):
            write_lesions(labels, image.affine, mask)
        with watch.step("save"):
            save_mask(labels, image, mask)
        return watch.seconds

    @torch.no_grad()
    def _segment_slice(self, windowed: np.ndarray, labels: np.ndarray, watch: Stopwatch) -> None:
        with watch.step("stage1"):
            image = torch.from_numpy(np.ascontiguousarray(windowed))[None, None].to(self._device)
            organ_prob = torch.sigmoid(self._model.stage1(image))
            salient = self._model.saliency(image, organ_prob)
            prob = organ_prob[0, 0].cpu().numpy()
        with watch.step("paste"):
            labels[prob >= THRESHOLD] = PANCREAS
        with watch.step("crop"):
            place = find_crop(prob, self._config.crop)
        if place is None:
            return
        with watch.step("stage2"):
            maps = self._model.stage2(salient[:, :, place[0], place[1]])
            tumor = torch.sigmoid(maps[-1])[0, 0].cpu().numpy()
        with watch.step("paste"):
            labels[place][tumor >= THRESHOLD] = TUMOR
