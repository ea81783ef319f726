"""The case store: volumes and labels on disk, read slice by slice.

    STORE/<case>/image.npy    int16 [z, row, col], HU, canonical frame
    STORE/<case>/label.npy    uint8 [z, row, col], 0 background, 1 pancreas, 2 tumour
    STORE/<case>/case.json    spacing and origin; written last, so that a case without it is unfinished

Both arrays are memory-mapped: training never holds the volumes in memory.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputError

PANCREAS, TUMOR = 1, 2


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with its label, memory-mapped."""

    name: str
    image: npt.NDArray[np.int16]
    """`[z, row, col]`, HU."""
    label: npt.NDArray[np.uint8]
    """`[z, row, col]`: 0 background, 1 pancreas, 2 tumour."""
    spacing_mm: tuple[float, float, float]
    """Millimetres between slices, rows and columns."""


@dataclass(frozen=True, order=True, slots=True)
class SliceRef:
    """One slice of one case, by position in the store."""

    case: int
    z: int


def write_case(
    store: Path,
    name: str,
    image: npt.NDArray[np.int16],
    label: npt.NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
) -> None:
    """Add a case to a store; an unfinished one of the same name is written anew."""
    folder = store / name
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", image)
    np.save(folder / "label.npy", label)
    (folder / "case.json").write_text(json.dumps({"spacing_mm": spacing_mm}) + "\n", encoding="utf-8")


def has_case(store: Path, name: str) -> bool:
    """Whether a store holds a finished case of this name."""
    return (store / name / "case.json").is_file()


def open_cases(store: Path, names: Sequence[str]) -> list[Case]:
    """Open cases of a store, in the order of their names as given.

    Raises:
        InputError: A case is missing or unfinished, or its image and label differ in shape.
    """
    return [_open_case(store, name) for name in names]


def _open_case(store: Path, name: str) -> Case:
    if not has_case(store, name):
        raise InputError(f"{store}: has no finished case {name!r}; prepare it again")
    folder = store / name
    image = np.load(folder / "image.npy", mmap_mode="r")
    label = np.load(folder / "label.npy", mmap_mode="r")
    if image.shape != label.shape:
        raise InputError(f"{folder}: image {image.shape} and label {label.shape} differ in shape; prepare it again")
    facts = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    return Case(name, image, label, tuple(facts["spacing_mm"]))
