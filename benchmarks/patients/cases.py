"""Patients: which files belong together, what they hold, and the parts of a scan that hold no pancreas."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cascade_rt.data.case_pairs import pair_cases
from cascade_rt.errors import InputError, UsageError
from cascade_rt.scans.names import split_suffix
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import Volume, read_mask

Mask = npt.NDArray[np.bool_]
CaseSet = Literal["slices", "scans"]

IMAGE_PREFIX, LABEL_PREFIX = "img", "label"
"""How BTCV names a scan and its labels: img0005.nii.gz and label0005.nii.gz."""
NOMINAL_PIXEL_MM = 0.8
"""Assumed of slices whose pixel size is not known."""
GAP_SLICES = 1
"""Slices beside the pancreas that belong to no part without it: where it ends is the reader's judgement."""


@dataclass(frozen=True, slots=True)
class Case:
    """One patient: an image, its labels, and how both are read."""

    name: str
    set: CaseSet
    image: Path
    label: Path
    organ: int | None = None
    """The label of the pancreas; none: every label but 0, such as pancreas and tumor."""

    @property
    def number(self) -> int | None:
        """The number at the end of the name, such as 51 of PANCREAS_0051; None where it has none, or several."""
        match = re.fullmatch(r"\D*(\d+)", self.name)
        return int(match[1]) if match else None


@dataclass(frozen=True, eq=False, slots=True)
class Patient:
    """A case in memory."""

    case: Case
    volume: Volume
    truth: Mask
    """`[z, row, col]`, where there is pancreas."""


def find_slices(folder: Path) -> list[Case]:
    """The stacks of scattered slices in `images` and `labels` of a folder, paired by name.

    Enlarged copies of a patient's slices (`..._crop0`) are left out: each patient counts once.

    Raises:
        InputError: A folder or a partner is missing.
    """
    pairs = pair_cases(folder / "images", folder / "labels")
    whole = [pair for pair in pairs if not re.search(r"_crop\d+$", pair.name)]
    return [Case(pair.name, "slices", pair.image, pair.label) for pair in whole]


def find_scans(images: Path, labels: Path, organ: int | None) -> list[Case]:
    """The whole scans of two folders, which may be the same, paired as BTCV names them or else by equal names.

    Raises:
        InputError: A folder or a partner is missing.
    """
    named = _nifti_files(images, IMAGE_PREFIX)
    if not named:
        return [Case(pair.name, "scans", pair.image, pair.label, organ) for pair in pair_cases(images, labels)]
    partners = _nifti_files(labels, LABEL_PREFIX)
    alone = [f"{IMAGE_PREFIX}{rest}" for rest in named.keys() - partners.keys()]
    alone += [f"{LABEL_PREFIX}{rest}" for rest in partners.keys() - named.keys()]
    if alone:
        raise InputError(
            f"{images}, {labels}: unpaired: {', '.join(sorted(alone))}; add the missing files or remove these"
        )
    return [Case(f"{IMAGE_PREFIX}{rest}", "scans", named[rest], partners[rest], organ) for rest in sorted(named)]


def choose_cases(cases: Sequence[Case], numbers: str | None) -> list[Case]:
    """The cases whose number is asked for, such as `51-62` or `5,9,21-27`; all where nothing is asked.

    Raises:
        UsageError: The text is no list of numbers, or there is no such case.
    """
    if numbers is None:
        return list(cases)
    wanted = set(_numbers(numbers))
    chosen = [case for case in cases if case.number in wanted]
    if not chosen:
        there = ", ".join(case.name for case in cases)
        raise UsageError(f"cases {numbers!r}: no such cases; there are {there}")
    return chosen


def read_patient(case: Case) -> Patient:
    """Read a scan and where its pancreas is.

    Raises:
        InputError: A file is damaged, the labels lie on another grid, or there is no pancreas in them.
    """
    # The slices begin at 0 HU, which a scan does not; that they are HU is known.
    options = ScanOptions(assume_hu=True) if case.set == "slices" else DEFAULT_SCAN_OPTIONS
    volume = read_volume(case.image, options)
    labels = read_mask(case.label, like=volume)
    truth = labels > 0 if case.organ is None else labels == case.organ
    if not truth.any():
        wanted = "no label but 0" if case.organ is None else f"no label {case.organ}"
        raise InputError(f"{case.label}: holds {wanted}; pass the label value of the pancreas with --organ")
    return Patient(case, volume, truth)


def parts_without_organ(patient: Patient) -> Iterator[tuple[str, Volume]]:
    """Cut a scan above and below its pancreas, a gap away from it, into volumes that hold none, where there are any.

    Yields:
        `above` or `below`, and the part as a scan of its own.
    """
    present = np.flatnonzero(patient.truth.any(axis=(1, 2)))
    first, last, depth = int(present[0]), int(present[-1]), len(patient.truth)
    for name, part in (
        ("above", slice(last + 1 + GAP_SLICES, depth)),
        ("below", slice(0, max(0, first - GAP_SLICES))),
    ):
        if part.start < part.stop:
            yield name, cut(patient.volume, part)


def cut(volume: Volume, part: slice) -> Volume:
    """The slices of a part of a scan, where they are in the world."""
    affine = volume.affine.copy()
    affine[:, 3] = volume.affine @ np.array([part.start, 0, 0, 1])
    # From (z, row, col) to (i, j, k) = (col, row, z), the order of files.
    return Volume.from_array(volume.voxels[part].T, affine[:, [2, 1, 0, 3]], name=volume.name)


def read_negatives(path: Path) -> Volume:
    """Read `image` `[z, row, col]` of an .npz, HU; row 0 is anterior, column 0 the patient's right.

    Raises:
        InputError: There is no such file, or no such array in it.
    """
    try:
        with np.load(path) as arrays:
            image = np.asarray(arrays["image"])
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: is not an .npz with an array 'image' ({error}); choose another file") from error
    affine = np.diag([-NOMINAL_PIXEL_MM, -NOMINAL_PIXEL_MM, 1.0, 1.0])
    return Volume.from_array(image.astype(np.int16).T, affine, name=path.stem)


def _nifti_files(folder: Path, prefix: str) -> dict[str, Path]:
    """For each .nii or .nii.gz file whose name begins with a prefix, the rest of its name and its path."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; choose the one with the .nii or .nii.gz files")
    found = {}
    for path in sorted(folder.iterdir()):
        name, suffix = split_suffix(path.name)
        if suffix and re.fullmatch(rf"{prefix}\d+", name):
            found[name.removeprefix(prefix)] = path
    return found


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise UsageError(f"cases {text!r}: {part.strip()!r} is not a number or range; use the form 51-62 or 5,9")
        first = int(match[1])
        yield from range(first, int(match[2] or first) + 1)
