"""Turn the labelled NIH slices, a zip of pictures, into a folder that `cascade-rt prepare --dataset folder` takes.

    python benchmarks/patients/nih_slices.py nih_pancreas_slices.zip FOLDER [--without slices_without_pancreas.npz]
    cascade-rt prepare --dataset folder --images FOLDER/images --labels FOLDER/labels --organ 1 --scattered \
        --split FOLDER/split.json -o STORE

The zip holds `image/PPPP_SSS.jpg` and `mask/PPPP_SSS.png`: patient, slice; grey values are HU clipped to [0, 255]; rows
are stored upside down. Names that end in `_crop0` or `_crop1` are the middle of a slice, with 40 or 80 pixels cut from
each side, stretched to 512 x 512 again; they become cases of their own, with smaller pixels.

    FOLDER/images/PANCREAS_0001.nii.gz         the whole slices of a patient, one behind the other, LPS
    FOLDER/images/PANCREAS_0001_crop0.nii.gz   the enlarged ones
    FOLDER/images/LIDC_0314.nii.gz             slices of a chest, without pancreas, where they are given
    FOLDER/labels/...                          the same names; 1 is pancreas
    FOLDER/split.json                          {"train": [...], "test": [...]}: patients 51 to 62 are for the test

Pictures have no pixel size: that of whole slices is nominally 0.8 mm, the middle of what NIH's scans have (0.66 to 0.98).

Source: TCIA Pancreas-CT (Roth et al., https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU), CC BY 3.0. Chest: LIDC-IDRI-0314
(https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX), CC BY 3.0.
"""

import argparse
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

FIRST_TEST_PATIENT = 51
PIXEL_MM = 0.8
PIXELS_CUT = {"": 0, "_crop0": 40, "_crop1": 80}
"""Pixels that an enlarged slice lost on each side of 512."""
_SIDE = 512
_NAME = re.compile(r"image/(\d{4})_(\d+)(|_crop0|_crop1)\.jpg")

Grey = npt.NDArray[np.uint8]


def main() -> None:
    """Read the zip and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slices", type=Path, help="nih_pancreas_slices.zip")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without", type=Path, help="slices_without_pancreas.npz, added to the training cases")
    options = parser.parse_args()
    names = []
    with zipfile.ZipFile(options.slices) as archive:
        for name, entries in cases_of(archive.namelist()).items():
            kind = name.removeprefix(name[:13])
            write_pair(options.folder, name, *read_slices(archive, entries), pixel_mm(kind))
            names.append(name)
    if options.without is not None:
        grey = np.load(options.without)["image"]
        write_pair(options.folder, "LIDC_0314", grey, np.zeros_like(grey), PIXEL_MM)
        names.append("LIDC_0314")
    test = [name for name in names if is_test_case(name)]
    split = {"train": [name for name in names if name not in test], "test": test}
    (options.folder / "split.json").write_text(json.dumps(split, indent=1) + "\n")
    print(f"{options.folder}: {len(split['train'])} training and {len(test)} test cases")


def cases_of(names: Sequence[str]) -> Mapping[str, list[str]]:
    """The pictures of each case, slices in order."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        match = _NAME.fullmatch(name)
        if match:
            patient, number, kind = match.groups()
            found[f"PANCREAS_{patient}{kind}"].append((int(number), name))
    return {case: [name for _, name in sorted(entries)] for case, entries in sorted(found.items())}


def is_test_case(name: str) -> bool:
    """Whether a case is of a patient that no weights are trained on; so are the enlarged slices of such a patient."""
    return name.startswith("PANCREAS_") and int(name[9:13]) >= FIRST_TEST_PATIENT


def pixel_mm(kind: str) -> float:
    """Side of a pixel of a whole slice, or of an enlarged one."""
    return PIXEL_MM * (_SIDE - 2 * PIXELS_CUT[kind]) / _SIDE


def read_slices(archive: zipfile.ZipFile, entries: Sequence[str]) -> tuple[Grey, Grey]:
    """Read pictures and their masks, `[slice, row, col]` each: row 0 is anterior, column 0 the patient's right."""
    images = [_read(archive, entry) for entry in entries]
    masks = [_read(archive, entry.replace("image/", "mask/").replace(".jpg", ".png")) >= 128 for entry in entries]
    return np.stack(images), np.stack(masks).astype(np.uint8)


def write_pair(folder: Path, name: str, grey: Grey, label: Grey, side_mm: float) -> None:
    """Write `[slice, row, col]`, HU as they are, and its label as NIfTI."""
    affine = np.diag([-side_mm, -side_mm, 1.0, 1.0])
    for kind, array in (("images", grey.astype(np.int16)), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(array.transpose(2, 1, 0), affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / kind / f"{name}.nii.gz")


def _read(archive: zipfile.ZipFile, entry: str) -> Grey:
    with Image.open(BytesIO(archive.read(entry))) as picture:
        return np.asarray(picture.convert("L"))[::-1]


if __name__ == "__main__":
    main()
