"""Run both stages on one scan."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.byte_probabilities import to_bytes
from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.pixel_runs import Peaks, find_peaks
from cascade_rt.common.tensors import PADDING_HU, STAGES, Stage, padded_side
from cascade_rt.common.timing import Stopwatch
from cascade_rt.config import CascadeConfig
from cascade_rt.engines import Engines
from cascade_rt.engines.base import Array
from cascade_rt.engines.stage_bridge import binarize
from cascade_rt.models.crop import Box, CropBatch, CropQueue, paste, plan_box, tightest_box
from cascade_rt.scans.pixel_grid import PixelGrid, Pixels, pixels_of, working_grid
from cascade_rt.scans.search import (
    WHOLE_SCAN,
    SearchOptions,
    SearchRecord,
    find_body,
    first_slices,
    neighbourhood,
    on_body_grid,
)

KeptMaps = Mapping[Stage, npt.DTypeLike]
"""The stages whose probability maps are kept: as float32, or as bytes in units of 1/255."""
NO_MAPS: KeptMaps = {}
BOTH_MAPS: KeptMaps = {"stage1": np.float32, "stage2": np.float32}


def _ignore(_: object) -> None:
    pass


def segment_voxels(
    engines: Engines,
    config: CascadeConfig,
    voxels: npt.NDArray[np.int16],
    pixel_mm: tuple[float, float] | None,
    *,
    keep_probabilities: bool = False,
) -> "ScanRun":
    """Run both stages on voxels that do not come from a file.

    All islands are kept, because the slices may not be neighbours.

    Args:
        engines: Both stages.
        config: The networks and the glue between them.
        voxels: `[z, row, col]`, HU.
        pixel_mm: Distance in mm between rows and columns; None if unknown, in which case slices are not resampled.
        keep_probabilities: Also keep the probability maps of both stages.

    Raises:
        EngineError: An engine returned an invalid value, such as NaN.
    """
    with engines.turns.take():
        run = ScanRun(engines, config, voxels.shape, pixel_mm, BOTH_MAPS if keep_probabilities else NO_MAPS)
        run.segment(voxels)
    return run


class ScanRun:
    """The run of one scan through the cascade.

    Slices are processed in blocks that share one buffer, and crops wait in a queue until a batch of equal size is full.
    Memory therefore holds the scan, the mask and a few blocks, however many slices there are.

    Attributes:
        mask: `[z, row, col]`, labels.
        boxes: The crop of each slice that has one, in the scan's own pixels.
        slices_without_organ: Number of searched slices in which stage 1 found nothing.
        organ_prob: `[z, row, col]`, or None if not kept. Bytes are units of 1/255.
        tumor_prob: `[z, row, col]`, 0 outside the crops, or None if not kept. Bytes are units of 1/255.
        tumor_peaks: The largest probability in each run of tumor in the mask, slices in any order; empty if stage 2
            does not look for tumors.
        search: Where stage 1 has looked.
        working_grid: The pixel grid on which the networks see the slices, or None if it is the scan's own.
        stopwatch: Seconds of each step.
    """

    def __init__(
        self,
        engines: Engines,
        config: CascadeConfig,
        shape: tuple[int, ...],
        pixel_mm: tuple[float, float] | None,
        kept_maps: KeptMaps = NO_MAPS,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Allocate the mask of a scan.

        Args:
            engines: Both stages.
            config: The networks and the glue between them.
            shape: Number of slices, rows and columns.
            pixel_mm: Distance in mm between rows and columns; None if unknown, in which case the spacing that the
                networks were trained on is assumed.
            kept_maps: The probability maps to keep.
            stopwatch: Times the steps.
        """
        rows, cols = shape[1:]
        self.working_grid = (
            None if pixel_mm is None else working_grid(PixelGrid((rows, cols), pixel_mm), config.pixel_mm)
        )
        self._pixels = pixels_of((rows, cols), self.working_grid, config.window_hu)
        self.mask = np.zeros(shape, dtype=np.uint8)
        self.boxes: dict[int, Box] = {}
        self.slices_without_organ = 0
        self.organ_prob, self.tumor_prob = (
            np.zeros(shape, dtype=kept_maps[stage]) if stage in kept_maps else None for stage in STAGES
        )
        self.tumor_peaks: list[Peaks] = []
        self.search = SearchRecord()
        self.stopwatch = stopwatch or Stopwatch()
        self._config = config
        self._stages = engines.bridge()
        self._paints_organ = config.stage1 != "none" and config.target == "tumor"
        self._finds_tumor = config.target == "tumor"
        self._stage2_label = TUMOR_LABEL if self._finds_tumor else ORGAN_LABEL
        self._slices_at_once = engines.stage1.preferred_batch
        self._queue = CropQueue[Any](engines.stage2.preferred_batch)

    @property
    def probabilities(self) -> dict[Stage, Array]:
        """The probability map `[z, row, col]` of each stage. Raises ValueError if they were not kept."""
        if self.organ_prob is None or self.tumor_prob is None:
            raise ValueError("the probabilities were not kept")
        return {"stage1": self.organ_prob, "stage2": self.tumor_prob}

    def segment(
        self,
        voxels: npt.NDArray[np.int16],
        *,
        wait_for: Callable[[slice], None] = _ignore,
        head_first: bool = False,
        on_slices: Callable[[int], None] = _ignore,
        search: SearchOptions = WHOLE_SCAN,
    ) -> None:
        """Run both stages on a scan.

        Args:
            voxels: `[z, row, col]`, HU.
            wait_for: Called with a range of slices before they are accessed, for scans that are still being read.
            head_first: Begin with the last slices, for scans that are read in that order.
            on_slices: Called with the number of slices that stage 1 has just finished, or that are left out.
            search: Where stage 1 looks.

        Raises:
            EngineError: An engine returned an invalid value, such as NaN.
        """
        self.search = SearchRecord(search.first_every)
        everything = range(len(voxels))
        with closing(self._stages):
            frame = Box(0, 0, *self._pixels.shape)
            if search.body_box:
                with self.stopwatch.step("load"):
                    wait_for(slice(0, len(voxels)))
                with self.stopwatch.step("preprocess"):
                    frame = on_body_grid(self._pixels.seen_box(find_body(voxels)), self._pixels.shape)
                self.search = replace(self.search, body_box=self._pixels.own_box(frame))
            multiple = self._config.stage1_side_multiple
            pixels = _Frame(voxels, frame, self._pixels, wait_for, self._slices_at_once, multiple)
            slices: Sequence[int] = everything
            if search.first_every > 1:
                slices = self._search_slices(pixels, head_first=head_first)
                on_slices(len(everything) - len(slices))
            for block in _blocks(slices, self._slices_at_once, head_first=head_first):
                self._segment_slices(pixels, block)
                on_slices(len(block))
            for batch in self._queue.drain():
                self._find_tumor(batch)

    def _search_slices(self, pixels: "_Frame", *, head_first: bool) -> Sequence[int]:
        """Run stage 1 on every k-th slice, segment those with organ, and return the slices still to be processed."""
        count, every = len(pixels.voxels), self.search.first_every
        found: list[int] = []
        for block in _blocks(first_slices(count, every), self._slices_at_once, head_first=head_first):
            found += self._segment_slices(pixels, block, organ_only=True)
        if not found:
            self.search = replace(self.search, widened=True)
            return range(count)
        wanted = neighbourhood(found, count, every)
        self.search = replace(self.search, slices_left_out=count - len(wanted))
        return sorted(set(wanted) - set(found))

    def _segment_slices(self, pixels: "_Frame", indices: Sequence[int], *, organ_only: bool = False) -> list[int]:
        """Run stage 1 on some slices, and stage 2 on each batch of crops that becomes full.

        Returns:
            The slices with organ. With `organ_only`, slices without organ are ignored.
        """
        with self.stopwatch.step("load"):
            pixels.wait_for(indices)
        with self.stopwatch.step("preprocess"):
            hu = pixels.stage1_input(indices)
        with self.stopwatch.step("stage1"):
            organ = self._stages.find_organ(hu, masks=self.organ_prob is None and not pixels.needs_probabilities)
        found = []
        for number, index in enumerate(indices):
            with self.stopwatch.step("crop"):
                row_max, col_max = _maxima(organ, number, pixels.frame.size)
                has_organ = tightest_box(row_max, col_max, self._config.crop.threshold) is not None
            if has_organ:
                found.append(index)
            elif organ_only:
                continue
            else:
                self.slices_without_organ += 1
            self._paste_organ(index, organ["organ_prob"][number, 0], pixels.frame)
            batch = self._cut(number, index, row_max, col_max, pixels.frame)
            if batch is not None:
                self._find_tumor(batch)
        return found

    def _paste_organ(self, index: int, prob: Array, frame: Box) -> None:
        with self.stopwatch.step("paste"):
            frame, prob = self._pixels.place(prob[: frame.height, : frame.width], frame)
            if self._paints_organ:
                # The organ label is 1, which is also True in memory, so no temporary array is needed.
                binarize(prob, out=self.mask[index][frame.slices].view(np.bool_))
            if self.organ_prob is not None:
                self.organ_prob[index][frame.slices] = _as_kept(prob, self.organ_prob)

    def _cut(self, number: int, index: int, row_max: Array, col_max: Array, frame: Box) -> CropBatch[Any] | None:
        """Queue the crop of a slice, if it has one, and return the batch if this crop fills it."""
        with self.stopwatch.step("crop"):
            box = plan_box(row_max, col_max, self._config.crop)
            if box is None:
                return None
            patch = self._stages.crop(number, frame.size, box)
            placed = Box(frame.row + box.row, frame.col + box.col, *box.size)
            self.boxes[index] = self._pixels.own_box(placed)
            return self._queue.put(index, placed, patch)

    def _find_tumor(self, batch: CropBatch[Any]) -> None:
        with self.stopwatch.step("stage2"):
            # The score of a lesion needs probabilities, so masks are not enough when stage 2 looks for tumors.
            masks = self.tumor_prob is None and not self._pixels.resampled and not self._finds_tumor
            tumor = self._stages.find_tumor(batch.crops, masks=masks)[:, 0]
        with self.stopwatch.step("paste"):
            for index, placed, found_there in zip(batch.slices, batch.boxes, tumor, strict=True):
                box, prob = self._pixels.place(found_there, placed)
                inside = self.mask[index][box.slices]
                found = binarize(prob[: inside.shape[0], : inside.shape[1]])
                np.copyto(inside, self._stage2_label, where=found)
                if self._finds_tumor:
                    corner = (index, box.row, box.col)
                    self.tumor_peaks.append(find_peaks(found, prob, corner, self.mask.shape))
                if self.tumor_prob is not None:
                    paste(_as_kept(prob, self.tumor_prob), box, self.tumor_prob[index])


class _Frame:
    """The part of each slice that is searched, and the buffer that holds the input of stage 1."""

    def __init__(
        self,
        voxels: npt.NDArray[np.int16],
        frame: Box,
        pixels: Pixels,
        wait_for: Callable[[slice], None],
        slices_at_once: int,
        side_multiple: int,
    ) -> None:
        self.voxels = voxels
        self.frame = frame
        self._pixels = pixels
        self._wait_for = wait_for
        count = min(slices_at_once, len(voxels))
        rows, cols = (padded_side(side, side_multiple) for side in frame.size)
        self._block = np.full((count, 1, rows, cols), PADDING_HU, dtype=np.float32)
        self.needs_probabilities = pixels.resampled or self._block.shape[2:] != frame.size

    def wait_for(self, indices: Sequence[int]) -> None:
        """Block until these slices have been read."""
        self._wait_for(slice(min(indices), max(indices) + 1))

    def stage1_input(self, indices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the stage-1 input `[slice, 1, row, col]` of some slices, valid until the next call.

        It is padded at the bottom and right to sides that the networks accept.
        """
        for number, index in enumerate(indices):
            seen = self._pixels.read(self.voxels[index], self.frame)
            self._block[number, 0, : self.frame.height, : self.frame.width] = seen
        return self._block[: len(indices)]


def _as_kept(prob: Array, kept: Array) -> Array:
    return to_bytes(prob) if kept.dtype == np.uint8 else prob


def _maxima(organ: Mapping[str, Array], number: int, size: tuple[int, int]) -> tuple[Array, Array]:
    """Return the maxima of each row and each column of an image without its padding."""
    row_max, col_max = organ["row_max"][number], organ["col_max"][number]
    rows, cols = size
    if (len(row_max), len(col_max)) == size:
        return row_max, col_max
    # The engine's maxima include the padding, where a false positive would stretch the box.
    inside = organ["organ_prob"][number, 0, :rows, :cols]
    return inside.max(axis=1), inside.max(axis=0)


def _blocks(indices: Sequence[int], length: int, *, head_first: bool) -> Iterator[Sequence[int]]:
    """Split slices into blocks; `head_first` reverses their order but not the blocks themselves."""
    starts = range(0, len(indices), length)
    return (indices[first : first + length] for first in (reversed(starts) if head_first else starts))
