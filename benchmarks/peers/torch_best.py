"""Peer (b): PyTorch at its best: channels_last, inference_mode, batches, autocast, torch.compile, CUDA graphs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.common import (
    PANCREAS,
    THRESHOLD,
    TUMOR,
    Place,
    check_sides,
    find_crop,
    open_bundle,
    save_mask,
    to_slices,
    write_lesions,
)
from cascade_rt.common.timing import Stopwatch
from cascade_rt.models.cascade_model import CascadeModel, Stage1Graph, tumor_maps
from cascade_rt.models.weights import load_model

SLICES, CROPS = 4, 8
"""Slices of a batch of stage 1, crops of one of stage 2."""
Arithmetic = Literal["fp32", "bf16", "fp16"]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Stage2(nn.Module):
    """Crops to tumor probabilities, the last step in float32 whatever is before it."""

    def __init__(self, model: CascadeModel) -> None:
        super().__init__()
        self.stage2 = model.stage2

    def forward(self, salient: Tensor) -> Tensor:
        """Run on `[crop, 1, row, col]`."""
        return torch.sigmoid(tumor_maps(self.stage2, salient)[-1].float())


class TorchBest:
    """Segments a scan in batches, on the GPU where PyTorch finds one."""

    def __init__(self, bundle_path: Path, arithmetic: Arithmetic = "fp32", *, compiled: bool = False) -> None:
        bundle = open_bundle(bundle_path)
        self._crop = bundle.manifest.config.crop
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._arithmetic, self._compiled = arithmetic, compiled
        # Kernels chosen by trial: images of stage 1 all have one size.
        torch.backends.cudnn.benchmark = True
        model = load_model(bundle).to(self._device)
        stage1, stage2 = (
            graph.eval().to(memory_format=torch.channels_last) for graph in (Stage1Graph(model), Stage2(model))
        )
        self._stage1, self._stage2 = self._compile(stage1, stage2) if compiled else (stage1, stage2)

    def _compile(self, stage1: nn.Module, stage2: nn.Module) -> tuple[Any, Any]:
        """Compile what pays: on a GPU both stages as CUDA graphs, one for each size of crops; on a CPU stage 1.

        There stage 2 takes minutes to compile, again for crops of other sizes, and is a small part of the work.
        """
        import torch._dynamo.config as dynamo
        import torch._inductor.config as inductor

        # Weights are constants: normalisations are folded and weights are packed for the processor.
        inductor.freezing = True
        if self._device == "cpu":
            return torch.compile(stage1), stage2
        dynamo.recompile_limit = 64
        compiled = (torch.compile(graph, mode="reduce-overhead", dynamic=False) for graph in (stage1, stage2))
        return next(compiled), next(compiled)

    @property
    def description(self) -> Mapping[str, Any]:
        """What computes."""
        backend = "pytorch, channels last" + (", compiled" if self._compiled else "")
        return {
            "backend": backend,
            "precision": self._arithmetic,
            "device": self._device,
            "version": torch.__version__,
        }

    def run(self, scan: Path, mask: Path) -> Mapping[str, float]:
        """Segment a scan; returns the seconds of each step."""
        watch = Stopwatch()
        with watch.step("load"):
            image = nib.load(scan)
            hu = to_slices(np.asanyarray(image.dataobj), image.affine)
        check_sides(hu, self._crop)
        with (
            torch.inference_mode(),
            torch.autocast(self._device, _TYPES[self._arithmetic], enabled=self._arithmetic != "fp32"),
        ):
            labels = self._segment(hu, watch)
        with watch.step("measure"):
            write_lesions(labels, image.affine, mask)
        with watch.step("save"):
            save_mask(labels, image, mask)
        return watch.seconds

    def _segment(self, hu: np.ndarray, watch: Stopwatch) -> np.ndarray:
        labels = np.zeros(hu.shape, dtype=np.uint8)
        waiting: dict[tuple[int, int], list[tuple[int, Place, Tensor]]] = {}
        for first in range(0, len(hu), SLICES):
            with watch.step("preprocess"):
                block = np.ascontiguousarray(hu[first : first + SLICES], dtype=np.float32)[:, None]
            with watch.step("stage1"):
                organ_prob, salient = self._find_organ(block)
            with watch.step("paste"):
                labels[first : first + SLICES][organ_prob >= THRESHOLD] = PANCREAS
            for index, prob in enumerate(organ_prob):
                with watch.step("crop"):
                    place = find_crop(prob, self._crop)
                    if place is None:
                        continue
                    crop = salient[index, :, place[0], place[1]]
                    full = waiting.setdefault((crop.shape[1], crop.shape[2]), [])
                    full.append((first + index, place, crop))
                if len(full) == CROPS:
                    self._find_tumor(full, labels, watch)
                    full.clear()
        for rest in waiting.values():
            if rest:
                self._find_tumor(rest, labels, watch)
        return labels

    def _find_organ(self, block: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Run stage 1 on `[slice, 1, row, col]`: probabilities on the host, the salient image on the device."""
        if self._compiled:
            # The results of the last run may be overwritten.
            torch.compiler.cudagraph_mark_step_begin()
        images = torch.from_numpy(block).to(self._device).to(memory_format=torch.channels_last)
        organ_prob, _, _, salient = self._stage1(images)
        # A recorded graph writes its next results to the same place.
        return organ_prob[:, 0].cpu().numpy(), salient.clone() if self._compiled else salient

    def _find_tumor(self, crops: list[tuple[int, Place, Tensor]], labels: np.ndarray, watch: Stopwatch) -> None:
        with watch.step("stage2"):
            batch = torch.stack([crop for _, _, crop in crops]).to(memory_format=torch.channels_last)
            tumor = self._stage2(batch)[:, 0].cpu().numpy()
        with watch.step("paste"):
            for (index, place, _), prob in zip(crops, tumor, strict=True):
                labels[index][place][prob >= THRESHOLD] = TUMOR
