"""The case store: volumes and labels on disk, read slice by slice.

    STORE/<case>/image.npy    int16 [z, row, col], HU, canonical frame
    STORE/<case>/label.npy    uint8 [z, row, col], 0 background, 1 pancreas, 2 tumor
    STORE/<case>/case.json    spacing, source, and the shape and hash of both arrays. It is written last, so that a
                              case without it is unfinished.

Both arrays are memory-mapped, so that training never holds whole volumes in memory.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.arguments import as_path
from cascade_rt.common.atomic import atomic_write, write_bytes
from cascade_rt.common.hashing import file_sha256
from cascade_rt.common.labels import TUMOR_LABEL
from cascade_rt.common.outputs import write_error
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.errors import InputError

_ARRAYS = ("image.npy", "label.npy")


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with its label, memory-mapped."""

    name: str
    image: npt.NDArray[np.int16]
    """`[z, row, col]`, HU."""
    label: npt.NDArray[np.uint8]
    """`[z, row, col]`: 0 background, 1 pancreas, 2 tumor."""
    spacing_mm: tuple[float, float, float]
    """Spacing of slices, rows and columns in mm."""
    scattered: bool = False
    """Whether its slices are unrelated to each other rather than adjacent."""


@dataclass(frozen=True, order=True, slots=True)
class SliceRef:
    """One slice of a case, by index."""

    case: int
    z: int


@dataclass(frozen=True, slots=True)
class _ArrayRecord:
    """What case.json records about an array."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True, slots=True)
class _Facts:
    """Contents of case.json."""

    spacing_mm: tuple[float, float, float]
    source: Mapping[str, Any]
    arrays: Mapping[str, _ArrayRecord]
    """Keyed by file name. May be empty."""


def write_case(
    store: Path,
    name: str,
    image: npt.NDArray[np.int16],
    label: npt.NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    source: Mapping[str, Any] | None = None,
) -> None:
    """Add a case to a store, replacing one of the same name.

    Args:
        store: Folder of the store, created if missing.
        name: Name of the case and of its folder.
        image: `[z, row, col]`, HU.
        label: `[z, row, col]`: 0 background, 1 pancreas, 2 tumor.
        spacing_mm: Spacing of slices, rows and columns in mm.
        source: Record of what the case was made from, as plain values. File names are without folders.

    Raises:
        OutputError: The store cannot be written.
    """
    folder = store / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "case.json").unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    records = {
        "image.npy": _write_array(folder / "image.npy", image),
        "label.npy": _write_array(folder / "label.npy", label),
    }
    facts = {"spacing_mm": spacing_mm, "source": dict(source or {}), "arrays": records}
    write_bytes(folder / "case.json", (json.dumps(facts, indent=2) + "\n").encode(), overwrite=True)


def has_case(store: Path, name: str) -> bool:
    """Whether a store holds a finished case of this name."""
    return (store / name / "case.json").is_file()


def is_intact(store: Path, name: str) -> bool:
    """Return whether the arrays of a finished case match their recorded hashes. Reads both completely."""
    folder = store / name
    try:
        arrays = _read_facts(folder).arrays
        return all(file_sha256(folder / file_name) == arrays[file_name].sha256 for file_name in _ARRAYS)
    except (InputError, LookupError, OSError, NotAPlainFileError):
        return False


def read_source(store: Path, name: str) -> Mapping[str, Any]:
    """Return what a finished case was made from, as passed to `write_case`.

    Raises:
        InputError: Its case.json is damaged.
    """
    return _read_facts(store / name).source


def open_cases(store: str | os.PathLike[str], names: Sequence[str]) -> list[Case]:
    """Open cases of a store, in the order of `names`.

    Raises:
        InputError: A case is missing, unfinished or damaged, or its image and label differ in shape.
    """
    return [_open_case(as_path("store", store), name) for name in names]


def has_tumor(case: Case) -> bool:
    """Return whether any slice of a case has tumor. Reads the label only up to the first such slice."""
    return any(bool((label == TUMOR_LABEL).any()) for label in case.label)


def _open_case(store: Path, name: str) -> Case:
    if not has_case(store, name):
        raise InputError(f"{store}: has no finished case {name!r}; prepare it again")
    folder = store / name
    facts = _read_facts(folder)
    image, label = (_open_array(folder / file_name, facts) for file_name in _ARRAYS)
    if image.shape != label.shape:
        raise InputError(f"{folder}: image {image.shape} and label {label.shape} differ in shape; prepare it again")
    return Case(name, image, label, facts.spacing_mm, bool(facts.source.get("scattered", False)))


def _write_array(path: Path, array: npt.NDArray[Any]) -> dict[str, Any]:
    """Write an array and return its record for case.json."""
    atomic_write(path, lambda file: np.save(file, array), overwrite=True)
    return {"shape": array.shape, "dtype": str(array.dtype), "sha256": file_sha256(path)}


def _read_facts(folder: Path) -> _Facts:
    try:
        return _parse_facts(json.loads((folder / "case.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{folder}: its case.json cannot be read; delete the folder and prepare it again") from error


def _parse_facts(document: Any) -> _Facts:
    """Parse the contents of case.json, raising if anything does not have the expected structure."""
    z, row, col = (float(side) for side in document["spacing_mm"])
    if not all(0 < side < math.inf for side in (z, row, col)):
        raise ValueError("spacing_mm: is not a voxel size")
    source, arrays = (document.get(part, {}) for part in ("source", "arrays"))
    if not isinstance(source, dict) or not isinstance(arrays, dict):
        raise TypeError("source and arrays must be objects")
    records = {
        name: _ArrayRecord(tuple(map(int, record["shape"])), str(record["dtype"]), str(record["sha256"]))
        for name, record in arrays.items()
    }
    return _Facts((z, row, col), source, records)


def _open_array(path: Path, facts: _Facts) -> npt.NDArray[Any]:
    """Memory-map an array, checking its shape and dtype. Only `is_intact` checks its content."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read; delete its folder and prepare it again") from error
    record = facts.arrays.get(path.name)
    if record is not None and (array.shape, str(array.dtype)) != (record.shape, record.dtype):
        raise InputError(f"{path}: has changed since it was written; delete its folder and prepare it again")
    return array
