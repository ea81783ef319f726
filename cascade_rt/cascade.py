"""The way of a scan: the one place where the two stages meet."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from cascade_rt.bundle import Bundle, default_bundle_path, read_bundle
from cascade_rt.config import CascadeConfig, CropConfig
from cascade_rt.crop import Box, CropBatch, CropQueue, full_box, paste, plan_box, tightest_box
from cascade_rt.engines import BackendChoice, Engines, PrecisionChoice, open_engines
from cascade_rt.engines.base import Array
from cascade_rt.engines.plans import PlanSource, no_plans
from cascade_rt.errors import InputError
from cascade_rt.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.measurements import measure
from cascade_rt.provenance import provenance
from cascade_rt.segmentation import Segmentation, judge
from cascade_rt.tensors import CROPS_PER_BATCH, LONGEST_SIDE, PADDING_HU, SLICES_PER_BATCH, padded_side
from cascade_rt.timing import Stopwatch

if TYPE_CHECKING:
    # Engines are compared on arrays, also where nibabel is not installed.
    from cascade_rt.volume import Volume

MASK_THRESHOLD = 0.5
"""A voxel belongs to a label where its probability is at least this; boxes have a threshold of their own."""


class Cascade:
    """Both stages of a bundle, opened once and run on any number of scans.

    Example:
        with open_cascade() as cascade:
            segmentation = cascade.run(read_volume("scan.nii.gz"))
        segmentation.save("scan_seg.nii.gz")
    """

    def __init__(self, bundle: Bundle, engines: Engines) -> None:
        self.bundle = bundle
        self.engines = engines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free both engines."""
        self.engines.stage1.close()
        self.engines.stage2.close()

    def run(
        self,
        volume: "Volume",
        *,
        keep_probabilities: bool = False,
        on_slices: Callable[[int], None] = lambda _: None,
    ) -> Segmentation:
        """Segment a scan.

        Args:
            volume: The scan, in the canonical frame.
            keep_probabilities: Also return the probability maps of both stages, which take eight bytes a voxel.
            on_slices: Called with the number of slices that stage 1 has just finished.

        Raises:
            InputError: A slice is larger than the networks take.
            EngineError: An engine returned something that is not a number.
        """
        check_size(volume, self.bundle.manifest.config.crop)
        run = _Run(self.engines, self.bundle.manifest.config, volume.voxels.shape, keep_probabilities)
        run.segment(volume.voxels, on_slices)
        with run.stopwatch.step("measure"):
            found = measure(run.mask, volume.affine, volume.voxel_volume_ml)
        return Segmentation(
            volume=volume,
            mask=run.mask,
            status=judge(run.mask, found, self.bundle.manifest.config),
            measurements=found,
            boxes=run.boxes,
            slices_without_organ=run.slices_without_organ,
            warnings=volume.warnings,
            timings=run.stopwatch.seconds,
            provenance=self.provenance,
            organ_prob=run.organ_prob,
            tumor_prob=run.tumor_prob,
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """Bundle, engine and versions, as reports have them."""
        return provenance(self.bundle, self.engines)


def open_cascade(
    bundle: str | os.PathLike[str] | None = None,
    backend: BackendChoice = "auto",
    precision: PrecisionChoice = "auto",
    plans: PlanSource = no_plans,
    public_key: Path | None = None,
) -> Cascade:
    """Open a bundle, ready to segment scans.

    Args:
        bundle: Folder of the bundle; none: the embedded one, which was trained on synthetic phantoms.
        backend: Which library computes; `auto` takes the best that runs here.
        precision: Which type it computes in; `auto` takes the fastest on the backend.
        plans: Where the backend `tensorrt` gets its engines from.
        public_key: A PEM file; a bundle that the owner of this key has not signed is refused.

    Raises:
        BundleError: The bundle is refused, or has no graphs of this precision.
        BackendUnavailableError: The backend cannot run on this machine.
        EngineError: An engine does not compute what was exported.
        UsageError: The backend has no such precision.
    """
    opened = read_bundle(default_bundle_path() if bundle is None else Path(bundle), public_key)
    return Cascade(opened, open_engines(opened, backend, precision, plans))


def find_mask(engines: Engines, config: CascadeConfig, voxels: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Segment the voxels `[z, row, col]` of a scan, HU, to labels of the same shape and nothing else.

    Raises:
        EngineError: An engine returned something that is not a number.
    """
    run = _Run(engines, config, voxels.shape, keep_probabilities=False)
    run.segment(voxels)
    return run.mask


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """What both stages find in a scan, before anything is made of it."""

    mask: npt.NDArray[np.uint8]
    """`[z, row, col]`, labels."""
    organ_prob: npt.NDArray[np.float32]
    """`[z, row, col]`."""
    tumor_prob: npt.NDArray[np.float32]
    """`[z, row, col]`, 0 outside the crops."""
    boxes: dict[int, Box]
    """The crop of each slice that has one."""


def find(engines: Engines, config: CascadeConfig, voxels: npt.NDArray[np.int16]) -> Found:
    """Segment the voxels `[z, row, col]` of a scan, HU, and keep what the mask is made of.

    Raises:
        EngineError: An engine returned something that is not a number.
    """
    organ_prob, tumor_prob = (np.zeros(voxels.shape, dtype=np.float32) for _ in range(2))
    run = _Run(engines, config, voxels.shape, keep_probabilities=False)
    run.organ_prob, run.tumor_prob = organ_prob, tumor_prob
    run.segment(voxels)
    return Found(run.mask, organ_prob, tumor_prob, run.boxes)


class _Run:
    """One scan on its way through the cascade.

    Slices enter in blocks; crops wait in a queue until a batch of equal size is full. So memory holds the scan, the
    mask and a few blocks, however many slices there are.
    """

    def __init__(
        self, engines: Engines, config: CascadeConfig, shape: tuple[int, ...], keep_probabilities: bool
    ) -> None:
        self.stages = engines.hand_over()
        self.config = config
        self.stage2_label = TUMOR_LABEL if self.config.target == "tumor" else ORGAN_LABEL
        self.stopwatch = Stopwatch()
        self.queue = CropQueue[Any](CROPS_PER_BATCH)
        self.mask = np.zeros(shape, dtype=np.uint8)
        self.boxes: dict[int, Box] = {}
        self.slices_without_organ = 0
        self.organ_prob = np.zeros(shape, dtype=np.float32) if keep_probabilities else None
        self.tumor_prob = np.zeros(shape, dtype=np.float32) if keep_probabilities else None

    def segment(self, voxels: npt.NDArray[np.int16], on_slices: Callable[[int], None] = lambda _: None) -> None:
        """Run both stages on all slices `[z, row, col]`; `on_slices` as in `Cascade.run`."""
        with closing(self.stages):
            for first in range(0, len(voxels), SLICES_PER_BATCH):
                block = voxels[first : first + SLICES_PER_BATCH]
                self._segment_slices(first, block)
                on_slices(len(block))
            for batch in self.queue.drain():
                self._find_tumor(batch)

    def _segment_slices(self, first: int, block: npt.NDArray[np.int16]) -> None:
        """Run stage 1 on slices `[slice, row, col]`, and stage 2 on the crops that are complete by now."""
        rows, cols = block.shape[1:]
        with self.stopwatch.step("preprocess"):
            hu = pad_slices(block)
        with self.stopwatch.step("stage1"):
            organ = self.stages.find_organ(hu)
        with self.stopwatch.step("paste"):
            organ_prob = organ["organ_prob"][:, 0, :rows, :cols]
            if self.config.stage1 != "none" and self.stage2_label == TUMOR_LABEL:
                self.mask[first : first + len(block)][organ_prob >= MASK_THRESHOLD] = ORGAN_LABEL
            if self.organ_prob is not None:
                self.organ_prob[first : first + len(block)] = organ_prob
        for batch in self._plan(first, organ, (rows, cols)):
            self._find_tumor(batch)

    def _plan(self, first: int, organ: Mapping[str, Array], image_shape: tuple[int, int]) -> Iterator[CropBatch[Any]]:
        rows, cols = image_shape
        for index in range(len(organ["organ_prob"])):
            with self.stopwatch.step("crop"):
                row_max, col_max = organ["row_max"][index], organ["col_max"][index]
                if (len(row_max), len(col_max)) != image_shape:
                    # The maxima have seen the padding, where a false positive would stretch the box.
                    inside = organ["organ_prob"][index, 0, :rows, :cols]
                    row_max, col_max = inside.max(axis=1), inside.max(axis=0)
                self.slices_without_organ += tightest_box(row_max, col_max, self.config.crop.threshold) is None
                box = plan_box(row_max, col_max, self.config.crop)
                if box is None:
                    continue
                self.boxes[first + index] = box
                patch = self.stages.crop(index, image_shape, box)
            batch = self.queue.put(first + index, box, patch)
            if batch is not None:
                yield batch

    def _find_tumor(self, batch: CropBatch[Any]) -> None:
        with self.stopwatch.step("stage2"):
            tumor = self.stages.find_tumor(batch.crops)[:, 0]
        with self.stopwatch.step("paste"):
            for index, box, prob in zip(batch.slices, batch.boxes, tumor, strict=True):
                inside = self.mask[index][box.slices]
                inside[prob[: inside.shape[0], : inside.shape[1]] >= MASK_THRESHOLD] = self.stage2_label
                if self.tumor_prob is not None:
                    paste(prob, box, self.tumor_prob[index])


def check_size(volume: "Volume", config: CropConfig) -> None:
    """Raise InputError where a slice, or the box of all of it, is larger than the networks take."""
    _, rows, cols = volume.voxels.shape
    if max(full_box((rows, cols), config).size) > LONGEST_SIDE:
        raise InputError(
            f"{volume.name}: slices of {rows} x {cols} pixels are larger than {LONGEST_SIDE} x {LONGEST_SIDE}; "
            "is this an axial CT? resample it"
        )


def pad_slices(block: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Make stage-1 input `[slice, 1, row, col]` of slices `[slice, row, col]`, HU.

    Padded below and to the right to sides that the networks take.
    """
    count, rows, cols = block.shape
    hu = np.full((count, 1, padded_side(rows), padded_side(cols)), PADDING_HU, dtype=np.float32)
    hu[:, 0, :rows, :cols] = block
    return hu
