"""Select the slices of each epoch and assemble them into batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.tensors import PADDING_HU, SHORTEST_SIDE
from cascade_rt.config import CropConfig, TrainConfig
from cascade_rt.data.augmentation import Window, change_slice, draw_change
from cascade_rt.data.slices import Case, SliceRef
from cascade_rt.data.synthetic_tumor import add_tumor
from cascade_rt.errors import InputError

HuSlice = npt.NDArray[np.int16]
LabelSlice = npt.NDArray[np.uint8]
USUAL_MARGIN = CropConfig().margin
FAT_HU = -100
SIDE_MULTIPLE = 32
"""Slices are padded to multiples of this, so that every crop of a batch lies inside the padded frame."""


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Slices or patches of equal size, the training input of both networks."""

    hu: npt.NDArray[np.float32]
    """`[batch, 1, row, col]`."""
    label: npt.NDArray[np.uint8]
    """`[batch, row, col]`: 0 background, 1 pancreas, 2 tumor."""
    margins: npt.NDArray[np.int64] | None = None
    """`[batch, 4]`: pixels to add above, below, left and right of each box, or None for the margin of the config."""
    share: float = 1.0
    """Fraction of the whole batch in this part, when several processes divide the batch. 0 if this part is empty."""


@dataclass(frozen=True, eq=False, slots=True)
class SliceSampler:
    """Draws the batches of each epoch. The same seed and epoch give the same batches."""

    cases: Sequence[Case]
    config: TrainConfig
    margin: int
    foreground: tuple[SliceRef, ...]
    background: tuple[SliceRef, ...]
    tumor: tuple[SliceRef, ...]
    """The foreground slices with tumor."""

    @classmethod
    def over(cls, cases: Sequence[Case], config: TrainConfig, margin: int = USUAL_MARGIN) -> "SliceSampler":
        """Build a sampler by sorting the slices of all cases into foreground and background.

        Args:
            cases: Training cases.
            config: Which slices to use, and how they are cut.
            margin: Pixels around a box, varied by the jitter.

        Raises:
            InputError: No case has a slice of the requested kind.
        """
        foreground, background, tumor = [], [], []
        for index, case in enumerate(cases):
            peak = case.label.max(axis=(1, 2))
            wanted = {"tumor": peak >= TUMOR_LABEL, "organ": peak > 0, "all": peak >= 0}[config.slices]
            foreground += [SliceRef(index, int(z)) for z in np.flatnonzero(wanted)]
            background += [SliceRef(index, int(z)) for z in np.flatnonzero((peak == 0) & ~wanted)]
            tumor += [SliceRef(index, int(z)) for z in np.flatnonzero(wanted & (peak >= TUMOR_LABEL))]
        if not foreground:
            raise InputError(f"the cases contain no slice with {config.slices}; check their labels, or train.slices")
        if config.tumor_share and not tumor:
            raise InputError("the cases contain no slice with tumor; check their labels, or set train.tumor_share to 0")
        return cls(cases, config, margin, tuple(foreground), tuple(background), tuple(tumor))

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches per epoch. The last may be smaller."""
        return -(-(len(self.foreground) + self._background_count) // self.config.batch_size)

    @property
    def _background_count(self) -> int:
        return min(len(self.background), round(self.config.background_share * len(self.foreground)))

    def epoch(self, number: int, rank: int = 0, workers: int = 1) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        Args:
            number: Index of the epoch, from 0.
            rank: Index of this process, from 0.
            workers: Number of processes that divide each batch. All get the same number of batches. The first process
                has a slice of every batch, but in the last batch others may have none.
        """
        random = np.random.default_rng((self.config.seed, number))
        chosen = random.choice(len(self.background), self._background_count, replace=False) if self.background else ()
        refs = [*self._foreground(random), *(self.background[index] for index in chosen)]
        order = random.permutation(len(refs))
        if workers > 1:
            random = random.spawn(workers)[rank]
        for start in range(0, len(refs), self.config.batch_size):
            members = [refs[index] for index in order[start : start + self.config.batch_size]]
            mine = members[rank::workers]
            yield replace(self._load(mine, random), share=len(mine) / len(members))

    def _foreground(self, random: np.random.Generator) -> Sequence[SliceRef]:
        """Return the foreground slices of one epoch: each once, or with the share of tumor slices set in the config."""
        rest = sorted(set(self.foreground) - set(self.tumor))
        if not self.config.tumor_share or not rest:
            return self.foreground
        with_tumor = round(self.config.tumor_share * len(self.foreground))
        return [
            refs[index]
            for refs, count in ((self.tumor, with_tumor), (rest, len(self.foreground) - with_tumor))
            for index in _draw(len(refs), count, random)
        ]

    def _draw_margins(self, count: int, random: np.random.Generator) -> npt.NDArray[np.int64] | None:
        """Draw margins `[count, 4]` as in RSTN: each, with probability 1/2, uniform from 0 to twice the usual."""
        if not self.config.margin_jitter:
            return None
        varied = random.integers(0, 2 * self.margin, size=(count, 4), endpoint=True)
        return np.where(random.random((count, 4)) < 0.5, varied, self.margin)

    def _draw_pair(self, ref: SliceRef, random: np.random.Generator) -> tuple[HuSlice, LabelSlice]:
        """Return a randomly augmented slice, or a patch of it, and its label."""
        image, label = self._with_other_surroundings(*self._with_tumor(ref, random), random)
        change = draw_change(self.config.augmentation, random)
        window = draw_patch(label, self.config.patch, self.config.patch_around, random) if self.config.patch else None
        return change_slice(image, label, change, window)

    def _with_tumor(self, ref: SliceRef, random: np.random.Generator) -> tuple[HuSlice, LabelSlice]:
        """Return a slice and its label. A healthy slice gets a synthetic tumor with the configured probability."""
        case = self.cases[ref.case]
        image, label = case.image[ref.z], case.label[ref.z]
        if not self.config.synthetic_tumors or label.max() != ORGAN_LABEL:
            return image, label
        if random.random() >= self.config.synthetic_tumors:
            return image, label
        grown = add_tumor(image[None], label[None], case.spacing_mm, self.config.tumor_recipe, random)
        return (image, label) if grown is None else (grown[0][0], grown[1][0])

    def _with_other_surroundings(
        self, image: HuSlice, label: LabelSlice, random: np.random.Generator
    ) -> tuple[HuSlice, LabelSlice]:
        """Return a slice and its label, in the configured fraction of cases with other tissue around the organ."""
        if not self.config.other_surroundings or not label.any() or random.random() >= self.config.other_surroundings:
            return image, label
        if random.random() < 0.5:
            return surround(image, label, np.full_like(image, FAT_HU), label)
        other = self.foreground[int(random.integers(len(self.foreground)))]
        case = self.cases[other.case]
        return surround(image, label, case.image[other.z], case.label[other.z])

    def _load(self, refs: Sequence[SliceRef], random: np.random.Generator) -> Batch:
        pairs = [self._draw_pair(ref, random) for ref in refs]
        shape = padded_shape([image.shape for image, _ in pairs])
        hu = np.full((len(pairs), 1, *shape), PADDING_HU, dtype=np.float32)
        labels = np.zeros((len(pairs), *shape), dtype=np.uint8)
        for index, (image, label) in enumerate(pairs):
            rows, cols = image.shape
            hu[index, 0, :rows, :cols] = image
            labels[index, :rows, :cols] = label
        return Batch(hu, labels, self._draw_margins(len(pairs), random))


def surround(
    image: HuSlice, label: LabelSlice, surroundings: HuSlice, surrounding_label: LabelSlice
) -> tuple[HuSlice, LabelSlice]:
    """Put the bounding box of the organ over that of another slice, middle on middle.

    Args:
        image: `[row, col]`, HU.
        label: `[row, col]`, with an organ.
        surroundings: `[row, col]`, HU, of any size. A box that is larger than it is cut off.
        surrounding_label: Of the shape of `surroundings`, with an organ. What it labels outside the box becomes 0.

    Returns:
        Image and label of the shape of `surroundings`.
    """
    hu, labels = surroundings.copy(), np.zeros_like(surrounding_label)
    source, target = zip(*map(_middle_on_middle, _box(label), _box(surrounding_label), hu.shape), strict=True)
    hu[target], labels[target] = image[source], label[source]
    return hu, labels


def _box(label: LabelSlice) -> tuple[slice, slice]:
    ((rows, cols),) = find_objects((label > 0).astype(np.uint8))
    return rows, cols


def _middle_on_middle(source: slice, target: slice, length: int) -> tuple[slice, slice]:
    """Return one side of a box, and where it lies on an axis of `length` when it is centered on another box."""
    width = min(source.stop - source.start, length)
    start = min(max(0, (target.start + target.stop - width) // 2), length - width)
    return slice(source.start, source.start + width), slice(start, start + width)


def _draw(available: int, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `count` of `available` indices such that their frequencies differ by at most one."""
    rounds = [random.permutation(available) for _ in range(-(-count // available))]
    return np.concatenate([np.zeros(0, dtype=np.int64), *rounds])[:count]


def padded_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Return the smallest shape that holds all slices (possibly none) and is valid input for both networks."""
    rows, cols = (max((shape[axis] for shape in shapes), default=0) for axis in (0, 1))
    return _padded_side(rows), _padded_side(cols)


def draw_patch(label: LabelSlice, side: int, around: float, random: np.random.Generator) -> Window:
    """Draw a square patch that contains the middle of the organ, or lies anywhere.

    Args:
        label: `[row, col]`.
        side: Rows and columns of the patch. A smaller slice stays whole.
        around: Fraction of the patches that contain the middle of the organ, if the slice has one.
        random: Source of the position.
    """
    anywhere = around < 1 and random.random() >= around
    sides = []
    for axis, length in enumerate(label.shape):
        present = np.flatnonzero(label.any(axis=1 - axis))
        low, high = 0, max(0, length - side)
        if present.size and not anywhere:
            middle = int(present[0] + present[-1]) // 2
            low, high = max(low, min(middle - side + 1, high)), max(0, min(middle, high))
        start = int(random.integers(low, high + 1))
        sides.append(slice(start, min(start + side, length)))
    return sides[0], sides[1]


def _padded_side(length: int) -> int:
    return max(SHORTEST_SIDE, -(-length // SIDE_MULTIPLE) * SIDE_MULTIPLE)
