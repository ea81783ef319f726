"""The pancreas task of the Medical Segmentation Decathlon, as downloaded or as an nnU-Net data set.

    Task07_Pancreas/dataset.json                  list of cases; if missing or broken, file names are used
    Task07_Pancreas/imagesTr/pancreas_001.nii.gz  nnU-Net: Dataset007_Pancreas/imagesTr/pancreas_001_0000.nii.gz
    Task07_Pancreas/labelsTr/pancreas_001.nii.gz  0 background, 1 pancreas, 2 tumor

The scans of `imagesTs` have no public labels and are not read.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.data.inputs import reading_settings
from cascade_rt.data.nifti_names import nifti_by_stem, nifti_stem
from cascade_rt.data.prepare import Listing, SourceCase, of_label
from cascade_rt.errors import InputError
from cascade_rt.scans.grids import check_same_grid
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import read_grid, read_label_grid, read_labels

TEST_SHARE = 65 / 281
"""The paper tests on 65 of the 281 labelled cases."""
_IMAGES, _LABELS, _LIST = "imagesTr", "labelsTr", "dataset.json"
_CHANNEL = "_0000"
_TUMOR_NAME = re.compile("cancer|tumou?r|lesion|mass|pdac", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MsdCase:
    """A scan and its label on one grid."""

    name: str
    image: Path
    label: Path
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS
    """How to read the scan. The store records whether its slices are unrelated (`scattered`)."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Scan and label."""
        return {"image": self.image, "label": self.label}

    @property
    def settings(self) -> Mapping[str, Any]:
        """How scans are read."""
        return {"dataset": "msd", **reading_settings(self.reading)}

    def check(self) -> None:
        """Compare the headers of scan and label."""
        scan = read_grid(self.image, self.reading)
        check_same_grid(read_label_grid(self.label, scan), scan, str(self.label))

    def read(self) -> SourceCase:
        """Read scan and label. Raises InputError if the label has values other than 0, 1 and 2."""
        volume = read_volume(self.image, self.reading)
        labels = read_labels(self.label, like=volume)
        unknown = np.flatnonzero(np.bincount(labels.voxels.ravel()))
        unknown = unknown[unknown > TUMOR_LABEL]
        if unknown.size:
            values = ", ".join(map(str, unknown))
            raise InputError(f"{self.label}: contains unknown values {values}; use 0 background, 1 pancreas, 2 tumor")
        source = {"image": self.image.name, "label": self.label.name, "affine": volume.affine.tolist()}
        return SourceCase(volume, labels.voxels, source, of_label(labels))


def find_msd_cases(data: Path, labels: Path | None = None, reading: ScanOptions = DEFAULT_SCAN_OPTIONS) -> Listing:
    """List the labelled cases.

    Args:
        data: The folder with `imagesTr`, or its parent.
        labels: Folder of the labels, if not `labelsTr` beside `imagesTr`.
        reading: How to read the scans.

    Raises:
        InputError: The folder does not exist or holds no cases.
    """
    root = _find_root(data)
    label_folder = root / _LABELS if labels is None else labels
    if not label_folder.is_dir():
        raise InputError(f"{label_folder}: no such folder; choose the label folder with `labels`")
    label_files = nifti_by_stem(label_folder.iterdir())
    image_files: dict[str, list[Path]] = {}
    for stem, paths in nifti_by_stem((root / _IMAGES).iterdir()).items():
        name = stem if stem in label_files else stem.removesuffix(_CHANNEL)
        image_files.setdefault(name, []).extend(paths)
    notes: list[str] = []
    document = _read_document(root / _LIST, notes)
    listed = _read_list(root / _LIST, document, notes)
    if listed is None:
        listed_names, label_of = [], {name: name for name in image_files.keys() | label_files.keys()}
    else:
        listed_names, label_of = [name for name, _ in listed], dict(listed)
    names = sorted(label_of)
    if not names:
        raise InputError(f"{root}: contains no cases; download the data set again")
    if image_files.keys() - names:
        notes.append(f"{root}: {len(image_files.keys() - names)} scans are not in {_LIST} and are left out")
    problems = [
        f"case {name}: is listed twice in {_LIST}" for name, count in Counter(listed_names).items() if count > 1
    ]
    shared = {label for label, count in Counter(label_of.values()).items() if count > 1}
    problems += [f"case {name}: has the label of another case in {_LIST}" for name in names if label_of[name] in shared]
    cases = []
    for name in names:
        labels_found = label_files.get(label_of[name], [])
        problem = _problem(name, image_files.get(name, []), labels_found)
        if problem:
            problems.append(f"case {name}: {problem}")
        else:
            cases.append(MsdCase(name, image_files[name][0], labels_found[0], reading))
    if listed is not None:
        problems += _folder_problems(document, [_IMAGES] if labels is not None else [_IMAGES, _LABELS])
    return Listing(cases, [*_label_problems(document), *problems], notes)


def _find_root(data: Path) -> Path:
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; check the path")
    roots = [folder for folder in (data, *sorted(data.iterdir())) if (folder / _IMAGES).is_dir()]
    if roots[:1] == [data]:
        return data
    if len(roots) != 1:
        found = f"{len(roots)} folders with {_IMAGES}" if roots else f"no {_IMAGES}"
        raise InputError(f"{data}: contains {found}; choose the folder with {_IMAGES} and {_LABELS}")
    return roots[0]


def _read_document(path: Path, notes: list[str]) -> dict[str, Any]:
    """Read the list of cases. Empty if the file does not exist or, with a note, cannot be read."""
    if not path.is_file():
        return {}
    try:
        # Windows editors may put a byte order mark in front.
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(document, dict):
            raise TypeError("not an object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        notes.append(_unread(path, error))
        return {}
    return document


def _unread(path: Path, error: Exception) -> str:
    return f"{path}: cannot be read ({error}); scans and labels were paired by name"


def _folder_problems(document: Mapping[str, Any], folders: Sequence[str]) -> list[str]:
    """Reject cases listed in a folder other than the one read, where a file of the same name may be a different one."""
    return [
        f"{_LIST} lists {entry[key]}, but files are read from {folder}; move it there, or correct the list"
        for entry in document["training"]
        for key, folder in zip(("image", "label"), folders, strict=False)
        if PureWindowsPath(entry.get(key, "")).parent.name not in ("", folder)
    ]


def _label_problems(document: Mapping[str, Any]) -> list[str]:
    """Reject labels whose values have other meanings than here, as in data sets derived from this one."""
    labels = document.get("labels")
    if not isinstance(labels, dict):
        return []
    # The Decathlon writes {"1": "pancreas"}, nnU-Net {"pancreas": 1}.
    meanings = {str(value): key if isinstance(value, int) else None for key, value in labels.items()}
    meanings |= {key: value for key, value in labels.items() if isinstance(value, str)}
    for number, is_tumor in ((ORGAN_LABEL, False), (TUMOR_LABEL, True)):
        meaning = meanings.get(str(number))
        if isinstance(meaning, str) and bool(_TUMOR_NAME.search(meaning)) != is_tumor:
            return [
                f"{_LIST} says that label {number} is {meaning!r}, not {'tumor' if is_tumor else 'pancreas'}; "
                "prepare it with `dataset=folder`, `organ` and `tumor`"
            ]
    return []


def _read_list(path: Path, document: Mapping[str, Any], notes: list[str]) -> list[tuple[str, str]] | None:
    """Return the names of the training cases and their labels, or None if not listed. Ignores the file's counts."""
    try:
        entries = document.get("training")
        # nnU-Net writes a file of the same name, but without a list.
        return [(_listed_name(entry["image"]), _listed_label(entry)) for entry in entries or ()] or None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        notes.append(_unread(path, error))
        return None


def _listed_name(image: str) -> str:
    """Return the case name of a listed scan. Its path may use Linux or Windows separators."""
    stem = nifti_stem(PureWindowsPath(image).name)
    if stem is None:
        raise ValueError(f"{image!r} is not a NIfTI file name")
    return stem.removesuffix(_CHANNEL)


def _listed_label(entry: Mapping[str, Any]) -> str:
    """Return the name of a listed scan's label, or that of the scan if no label is listed."""
    return _listed_name(entry.get("label", entry["image"]))


def _problem(name: str, images: list[Path], labels: list[Path]) -> str | None:
    for what, folder, found in (("scan", _IMAGES, images), ("label", _LABELS, labels)):
        if not found:
            return f"has no {what} in {folder}; copy it there, or remove {name} from {_LIST} and from the other folder"
        if len(found) > 1:
            return f"has {len(found)} {what}s, {' and '.join(path.name for path in found)}; keep one of them"
    return None
