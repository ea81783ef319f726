"""Crops of pancreas with and without tumor, as the public set of crops stores them.

A crop is the box of pancreas and tumor of one axial slice at native pixels, 8 bits over the window [-150, 250] HU; its
name is that of its patient, which says whether there is a tumor: `pancreas_416_slice_70.png` is of MSD Task07, where
every patient has one and every crop shows it, `PANCREAS_0051_slice_100.png` of NIH Pancreas-CT, whose patients are
healthy.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.patients.cases import Patient
from benchmarks.synthetic_tumors import make_tumors
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.errors import InputError

HuSlice = npt.NDArray[np.float32]
LOWEST_HU, HIGHEST_HU = -150.0, 250.0
"""The window in which crops are stored."""
LEAST_SIDE = 8
"""Pixels; a crop with a shorter side shows too little of a gland to be judged."""
_NAME = re.compile(r"(?P<patient>(?P<kind>pancreas|PANCREAS)_\d+)_slice_(?P<slice>\d+)\.png")


@dataclass(frozen=True, eq=False, slots=True)
class Crop:
    """The box of the pancreas in one slice of a patient."""

    patient: str
    slice: int
    hu: HuSlice
    """`[row, col]`."""
    has_tumor: bool

    @property
    def area(self) -> int:
        """Pixels of the box."""
        return self.hu.size


def read_crops(path: Path) -> list[Crop]:
    """Read all crops of a zip file.

    Raises:
        InputError: The file cannot be read as a zip, or holds no crop whose name says what it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            crops = [
                Crop(match["patient"], int(match["slice"]), _read(archive, name), match["kind"] == "pancreas")
                for name in sorted(archive.namelist())
                if (match := _NAME.fullmatch(Path(name).name))
            ]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as a zip file of crops ({error})") from error
    crops = [crop for crop in crops if min(crop.hu.shape) >= LEAST_SIDE]
    if not crops:
        raise InputError(
            f"{path}: contains no crops; they must be named pancreas_416_slice_70.png or PANCREAS_0051_slice_100.png"
        )
    return crops


def cut_crops(
    patients: Sequence[Patient], recipe: TumorRecipe, random: np.random.Generator
) -> Iterator[tuple[Crop, Crop]]:
    """Cut crops out of the labelled slices of healthy patients as those of the set are cut.

    Yields:
        For each slice in which a tumor can be made: the box of pancreas and tumor with the tumor, and the same box
        of the slice as it is.
    """
    for patient in patients:
        made = make_tumors(patient, recipe, random)
        for z, hu, label in zip(made.slices, made.hu, made.label, strict=True):
            box = _box(label > 0)
            ill, healthy = (
                Crop(patient.case.name, z, _as_stored(image[box]), has_tumor)
                for image, has_tumor in ((hu, True), (patient.volume.voxels[z], False))
            )
            if min(ill.hu.shape) >= LEAST_SIDE:
                yield ill, healthy


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)


def _as_stored(hu: npt.NDArray[np.int16]) -> HuSlice:
    return np.clip(hu, LOWEST_HU, HIGHEST_HU).astype(np.float32)


def _read(archive: zipfile.ZipFile, name: str) -> HuSlice:
    with Image.open(BytesIO(archive.read(name))) as picture:
        grey = np.asarray(picture.convert("L"), dtype=np.float32)
    return grey / 255 * (HIGHEST_HU - LOWEST_HU) + LOWEST_HU
