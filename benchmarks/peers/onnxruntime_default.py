"""Peer (d): the same script with ONNX Runtime as it comes, in place of PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnxruntime

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


class OnnxRuntimeScript:
    """Segments a scan slice by slice; every setting is ONNX Runtime's own, on a GPU too where its package has one."""

    def __init__(self, bundle_path: Path) -> None:
        bundle = open_bundle(bundle_path)
        self._crop = bundle.manifest.config.crop
        providers = [
            name
            for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
            if name in onnxruntime.get_available_providers()
        ]
        self._stage1, self._stage2 = (
            onnxruntime.InferenceSession(bundle.graph(stage).read_bytes(), providers=providers)
            for stage in ("stage1", "stage2")
        )

    @property
    def description(self) -> Mapping[str, Any]:
        """What computes."""
        provider = self._stage1.get_providers()[0]
        device = "cuda" if provider == "CUDAExecutionProvider" else "cpu"
        return {"backend": provider, "precision": "fp32", "device": device, "version": onnxruntime.__version__}

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        """Segment a scan; returns the seconds of each step."""
        watch = Stopwatch()
        with watch.step("load"):
            image = nib.load(scan)
            hu = to_slices(image.get_fdata(), image.affine)
        check_sides(hu, self._crop)
        labels = np.zeros(hu.shape, dtype=np.uint8)
        for index in range(len(hu)):
            with watch.step("preprocess"):
                # The graph has the window inside.
                single = np.ascontiguousarray(hu[index], dtype=np.float32)[None, None]
            self._segment_slice(single, labels[index], watch)
        with watch.step("measure"):
            write_lesions(labels, image.affine, mask)
        with watch.step("save"):
            save_mask(labels, image, mask)
        return watch.seconds

    def _segment_slice(self, hu: np.ndarray, labels: np.ndarray, watch: Stopwatch) -> None:
        with watch.step("stage1"):
            organ_prob, salient = self._stage1.run(["organ_prob", "salient"], {"hu": hu})
            prob = organ_prob[0, 0]
        with watch.step("paste"):
            labels[prob >= THRESHOLD] = PANCREAS
        with watch.step("crop"):
            place = find_crop(prob, self._crop)
        if place is None:
            return
        with watch.step("stage2"):
            crop = np.ascontiguousarray(salient[:, :, place[0], place[1]])
            (tumor,) = self._stage2.run(["tumor_prob"], {"salient": crop})
        with watch.step("paste"):
            labels[place][tumor[0, 0] >= THRESHOLD] = TUMOR
