"""NIH Pancreas-CT: DICOM series in numbered folders, and NIfTI labels in a separate folder.

    DATA/.../PANCREAS_0001/<study>/<series>/*.dcm     or converted: DATA/.../PANCREAS_0001.nii.gz
    LABELS/label0001.nii.gz                           0 background, 1 pancreas; there are no tumors

The labels are not in the frame of the series. `label_flip` determines their orientation.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cascade_rt.common.folders import raise_unreadable, walk_folder
from cascade_rt.common.labels import ORGAN_LABEL
from cascade_rt.data.inputs import reading_settings
from cascade_rt.data.label_flip import choose_flip, flip_label
from cascade_rt.data.names import FlipChoice
from cascade_rt.data.nifti_names import nifti_stem
from cascade_rt.data.prepare import Listing, SourceCase, of_label
from cascade_rt.errors import InputError, UsageError
from cascade_rt.scans.dicom import find_series, is_dicom, read_series
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import Volume, read_grid, read_label_grid, read_labels

TEST_SHARE = 20 / 82
"""The paper tests on 20 of 82 cases. Of the 80 available today, this share is also 20."""
_CASE_FOLDER = re.compile(r"(?:pancreas[_-]?)?(\d{4})", re.IGNORECASE)
_SCAN_STEM = re.compile(r"(?:.*[_-])?PANCREAS[_-]?(\d{4})(?:_0000)?", re.IGNORECASE)
_LABEL_STEM = re.compile(r"label[_-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NihCase:
    """A scan and the label of the same number."""

    name: str
    scan: Path
    """Folder of the DICOM series, or a NIfTI file."""
    label: Path
    label_flip: FlipChoice = "auto"
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS
    """How to read a NIfTI file. The store records whether its slices are unrelated (`scattered`)."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Scan and label."""
        return {"image": self.scan, "label": self.label}

    @property
    def settings(self) -> Mapping[str, Any]:
        """How labels are flipped and scans are read."""
        return {"dataset": "nih", "label_flip_asked": self.label_flip, **reading_settings(self.reading)}

    def check(self) -> None:
        """Check that label and scan have the same shape. Raises UsageError if NIfTI options are given for DICOM."""
        if self.scan.is_dir() and replace(self.reading, assume_hu=False) != DEFAULT_SCAN_OPTIONS:
            raise UsageError(f"{self.scan}: is DICOM, which takes no reading options; drop the options for NIfTI files")
        scan = find_series(self.scan).grid if self.scan.is_dir() else read_grid(self.scan, self.reading)
        _check_shape(read_label_grid(self.label, scan).shape, scan.shape, self.label)

    def read(self) -> SourceCase:
        """Read scan and label, and flip the label into the frame of the scan."""
        volume = self._read_scan()
        labels = read_labels(self.label, assume_orientation=volume.grid.assumed_orientation)
        label = labels.voxels
        _check_shape(label.shape, volume.voxels.shape, self.label)
        if label.max() > ORGAN_LABEL:
            values = ", ".join(str(value) for value in np.unique(label) if value > ORGAN_LABEL)
            raise InputError(f"{self.label}: contains unknown values {values}; use 0 background, 1 pancreas")
        fit, warnings = choose_flip(volume.voxels, label, self.label_flip)
        facts = asdict(fit)
        source = {
            "image": self.scan.name,
            "label": self.label.name,
            "affine": volume.affine.tolist(),
            "label_flip": facts.pop("flip"),
            "inside_label": facts,
        }
        return SourceCase(volume, flip_label(label, fit.flip), source, (*of_label(labels), *warnings))

    def _read_scan(self) -> Volume:
        if self.scan.is_dir():
            return read_series(find_series(self.scan), self.name, assume_hu=self.reading.assume_hu)
        return read_volume(self.scan, self.reading)


def find_nih_cases(
    data: Path, labels: Path | None = None, label_flip: FlipChoice = "auto", reading: ScanOptions = DEFAULT_SCAN_OPTIONS
) -> Listing:
    """List the cases: the scans in and below a folder, each with the label of the same number.

    Args:
        data: Folder of the scans.
        labels: Folder of the labels, or None if they are somewhere below `data`.
        label_flip: How to flip the labels.
        reading: How to read scans that are NIfTI files.

    Raises:
        InputError: A folder does not exist, or holds no scans or no labels.
    """
    for folder in (data, labels):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder; check the path")
    label_files = _find_labels(data if labels is None else labels)
    if not label_files:
        raise InputError(f"{labels or data}: contains no labels (label0001.nii.gz ...); set their folder with `labels`")
    scans, problems = _find_scans(data, labels)
    if not scans and not problems:
        raise InputError(
            f"{data}: contains no scans; provide DICOM files in folders PANCREAS_0001 ..., or PANCREAS_0001.nii.gz ..."
        )
    cases = []
    for number in sorted(scans):
        name = f"PANCREAS_{number:04d}"
        problem = _problem(number, scans[number], label_files.get(number, []))
        if problem:
            problems.append(f"case {name}: {problem}")
        else:
            cases.append(NihCase(name, scans[number][0], label_files[number][0], label_flip, reading))
    spare = [label_files[number][0].name for number in sorted(label_files.keys() - scans.keys())]
    notes = [f"{len(spare)} labels have no scan and are left out: {', '.join(spare)}"] if spare else []
    return Listing(cases, problems, notes)


def _find_labels(root: Path) -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = defaultdict(list)
    for content in walk_folder(root, raise_unreadable):
        for name in content.files:
            match = _LABEL_STEM.fullmatch(nifti_stem(name) or "")
            if match:
                found[int(match[1])].append(content.path / name)
    return found


def _find_scans(root: Path, labels: Path | None) -> tuple[dict[int, list[Path]], list[str]]:
    """Find scans (case folders and NIfTI files) by number, and name problems. Case folders are not searched further."""
    found: dict[int, list[Path]] = defaultdict(list)
    problems = []
    for content in walk_folder(root, raise_unreadable):
        for name in list(content.folders):
            path, match = content.path / name, _CASE_FOLDER.fullmatch(name)
            if match:
                scan = _only_nifti(path) or path
                found[int(match[1])].append(scan)
                if _number(scan) not in (None, int(match[1])):
                    problems.append(f"{scan}: is in the folder of case {match[1]}, but its name has a different number")
            if match or name.startswith(".") or (labels is not None and path.samefile(labels)):
                content.folders.remove(name)
        for name in content.files:
            path = content.path / name
            number = _number(path)
            if number is not None:
                found[number].append(path)
            elif _is_scan(path):
                sentence = "its name does not identify its case; rename it like PANCREAS_0001.nii.gz, or remove it"
                problems.append(f"{path}: {sentence}")
    return found, problems


def _number(path: Path) -> int | None:
    """Return the case number in the name of a converted scan, or None."""
    match = _SCAN_STEM.fullmatch(nifti_stem(path.name) or "")
    return int(match[1]) if match else None


def _is_scan(path: Path) -> bool:
    """Return whether a file is NIfTI and not a label."""
    stem = nifti_stem(path.name)
    return stem is not None and not stem.lower().startswith("label")


def _only_nifti(folder: Path) -> Path | None:
    """Return the converted scan of a case folder that has one NIfTI file instead of a DICOM series, or None."""
    contents = walk_folder(folder, raise_unreadable)
    files = [each.path / name for each in contents for name in each.files if not name.startswith(".")]
    scans = [path for path in files if _is_scan(path)]
    return scans[0] if len(scans) == 1 and not any(is_dicom(path) for path in files if path not in scans) else None


def _problem(number: int, scans: list[Path], labels: list[Path]) -> str | None:
    if len(scans) > 1:
        return f"has {len(scans)} scans, {' and '.join(map(str, scans))}; keep one of them"
    if not labels:
        return f"has no label; put label{number:04d}.nii.gz beside the others, or remove {scans[0]}"
    if len(labels) > 1:
        return f"has {len(labels)} labels, {' and '.join(map(str, labels))}; keep one of them"
    return None


def _check_shape(label: tuple[int, ...], scan: tuple[int, ...], path: Path) -> None:
    if label != scan:
        raise InputError(
            f"{path}: {label} voxels (z, row, column), but the scan has {scan}; "
            "use the label of this scan, and copy the whole series"
        )
