"""Which slices an epoch visits, and how a batch of them is cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

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
SIDE_MULTIPLE = 32
"""Slices are padded to multiples of this, so that every crop of a batch lies inside."""


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Slices or patches of equal size, as both networks are trained on."""

    hu: npt.NDArray[np.float32]
    """`[batch, 1, row, col]`."""
    label: npt.NDArray[np.uint8]
    """`[batch, row, col]`: 0 background, 1 pancreas, 2 tumor."""
    margins: npt.NDArray[np.int64] | None = None
    """`[batch, 4]`: pixels to add above, below, left and right of each box; None: as many as the config says."""
    share: float = 1.0
    """Part that these are of the slices of a batch which several processes divide among them; 0: it holds none."""


@dataclass(frozen=True, eq=False, slots=True)
class SliceSampler:
    """Draws the batches of each epoch; the same seed and epoch give the same batches."""

    cases: Sequence[Case]
    config: TrainConfig
    margin: int
    foreground: tuple[SliceRef, ...]
    background: tuple[SliceRef, ...]
    tumor: tuple[SliceRef, ...]
    """Those of the foreground that hold tumor."""

    @classmethod
    def over(cls, cases: Sequence[Case], config: TrainConfig, margin: int = USUAL_MARGIN) -> "SliceSampler":
        """Sort the slices of all cases into those to visit and those to mix in.

        Args:
            cases: Training cases.
            config: Which slices, and how they are cut.
            margin: Pixels around a box, which jitter varies.

        Raises:
            InputError: No case has a slice of the kind to train on.
        """
        foreground, background, tumor = [], [], []
        for index, case in enumerate(cases):
            peak = case.label.max(axis=(1, 2))
            wanted = {"tumor": peak >= TUMOR_LABEL, "organ": peak > 0, "all": peak >= 0}[config.slices]
            foreground += [SliceRef(index, int(z)) for z in np.flatnonzero(wanted)]
            background += [SliceRef(index, int(z)) for z in np.flatnonzero((peak == 0) & ~wanted)]
            tumor += [SliceRef(index, int(z)) for z in np.flatnonzero(wanted & (peak >= TUMOR_LABEL))]
        if not foreground:
            raise InputError(f"the cases hold no slice with {config.slices}; check their labels, or train.slices")
        if config.tumor_share and not tumor:
            raise InputError("the cases hold no slice with tumor; check their labels, or set train.tumor_share to 0")
        return cls(cases, config, margin, tuple(foreground), tuple(background), tuple(tumor))

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches of an epoch; the last may be smaller."""
        return -(-(len(self.foreground) + self._background_count) // self.config.batch_size)

    @property
    def _background_count(self) -> int:
        return min(len(self.background), round(self.config.background_share * len(self.foreground)))

    def epoch(self, number: int, rank: int = 0, workers: int = 1) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        Args:
            number: Number of the epoch, from 0.
            rank: Which process this is, from 0.
            workers: Processes that divide each batch among them. All get the same number of batches; the first has a
                slice of each, and in the last batch others may have none.
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
        """The slices with organ of one epoch: each once, or with as many tumors as the config asks for."""
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
        """Margins `[count, 4]` as RSTN varies them: each, every other time, anything from 0 to twice the usual one."""
        if not self.config.margin_jitter:
            return None
        varied = random.integers(0, 2 * self.margin, size=(count, 4), endpoint=True)
        return np.where(random.random((count, 4)) < 0.5, varied, self.margin)

    def _draw_pair(self, ref: SliceRef, random: np.random.Generator) -> tuple[HuSlice, LabelSlice]:
        """A slice or a patch of it, and its label, changed at random."""
        image, label = self._with_tumor(ref, random)
        change = draw_change(self.config.augmentation, random)
        window = draw_patch(label, self.config.patch, self.config.patch_around, random) if self.config.patch else None
        return change_slice(image, label, change, window)

    def _with_tumor(self, ref: SliceRef, random: np.random.Generator) -> tuple[HuSlice, LabelSlice]:
        """A slice and its label, with a synthetic tumor where it is its turn to have one."""
        case = self.cases[ref.case]
        image, label = case.image[ref.z], case.label[ref.z]
        if not self.config.synthetic_tumors or label.max() != ORGAN_LABEL:
            return image, label
        if random.random() >= self.config.synthetic_tumors:
            return image, label
        grown = add_tumor(image[None], label[None], case.spacing_mm, self.config.tumor_recipe, random)
        return (image, label) if grown is None else (grown[0][0], grown[1][0])

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


def _draw(available: int, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `count` of `available` indices, each as often as any other, give or take one."""
    rounds = [random.permutation(available) for _ in range(-(-count // available))]
    return np.concatenate([np.zeros(0, dtype=np.int64), *rounds])[:count]


def padded_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """The smallest shape that holds all the slices, of which there may be none, and that both networks take."""
    rows, cols = (max((shape[axis] for shape in shapes), default=0) for axis in (0, 1))
    return _padded_side(rows), _padded_side(cols)


def draw_patch(label: LabelSlice, side: int, around: float, random: np.random.Generator) -> Window:
    """Draw a square patch that holds the middle of the organ, or lies anywhere.

    Args:
        label: `[row, col]`.
        side: Rows and columns of the patch; a slice smaller than that stays whole.
        around: Share of the patches that hold the middle of an organ that is there.
        random: Where the position comes from.
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
