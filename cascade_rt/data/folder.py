"""User data: scans and labels in two folders, paired by name as in `evaluate`.

IMAGES/patient_07.nii.gz     a CT scan in Hounsfield units; nnU-Net's patient_07_0000.nii.gz is understood
LABELS/patient_07.nii.gz     on the same grid; the user states which values are pancreas and tumor
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.data.case_pairs import CasePair, LabelValues, pair_cases, translate_labels
from cascade_rt.data.inputs import reading_settings
from cascade_rt.data.prepare import Listing, SourceCase, of_label
from cascade_rt.scans.grids import check_same_grid
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import read_volume
from cascade_rt.scans.volume import read_grid, read_label_grid, read_labels

TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class FolderCase:
    """A scan and its label on one grid."""

    pair: CasePair
    values: LabelValues
    """Meaning of the label values. All others are background."""
    reading: ScanOptions
    """How to read the scan. The store records whether its slices are unrelated (`scattered`)."""

    @property
    def name(self) -> str:
        """Name of the label file without its suffix."""
        return self.pair.name

    @property
    def files(self) -> Mapping[str, Path]:
        """Scan and label."""
        return {"image": self.pair.image, "label": self.pair.label}

    @property
    def settings(self) -> Mapping[str, Any]:
        """Meaning of the label values, and how scans are read."""
        values = {"organ": list(self.values.organ), "tumor": list(self.values.tumor)}
        return {"dataset": "folder", **values, **reading_settings(self.reading)}

    def check(self) -> None:
        """Compare the headers of scan and label."""
        scan = read_grid(self.pair.image, self.reading)
        check_same_grid(read_label_grid(self.pair.label, scan), scan, str(self.pair.label))

    def read(self) -> SourceCase:
        """Read scan and label. The label must be empty or contain a named value, otherwise InputError is raised."""
        volume = read_volume(self.pair.image, self.reading)
        labels = read_labels(self.pair.label, like=volume)
        translated = translate_labels(labels.voxels, self.values, self.pair.label)
        source = {
            "image": self.pair.image.name,
            "label": self.pair.label.name,
            "affine": volume.affine.tolist(),
        }
        unnamed = _touching(labels.voxels, translated, across_slices=not self.reading.scattered)
        return SourceCase(volume, translated, source, (*of_label(labels), *_unnamed_label_warnings(unnamed)))


def _touching(label: npt.NDArray[np.uint8], translated: npt.NDArray[np.uint8], *, across_slices: bool) -> list[int]:
    """Return the label values that were not named but touch a named one."""
    unnamed = (label > 0) & (translated == 0)
    found: set[int] = set()
    if not unnamed.any():
        return []
    for axis in (0, 1, 2) if across_slices else (1, 2):
        before, behind = ((*[slice(None)] * axis, part) for part in (slice(None, -1), slice(1, None)))
        for one, other in ((before, behind), (behind, before)):
            found.update(np.unique(label[one][unnamed[one] & (translated[other] > 0)]).tolist())
    return sorted(found)


def _unnamed_label_warnings(unnamed: Sequence[int]) -> tuple[str, ...]:
    if not unnamed:
        return ()
    values = ", ".join(map(str, unnamed))
    what = f"its label {values} touches" if len(unnamed) == 1 else f"its labels {values} touch"
    return (f"{what} the pancreas and becomes background; keep what belongs to it with `organ` or `tumor`",)


def find_folder_cases(
    images: Path,
    labels: Path,
    values: LabelValues | None = None,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
) -> Listing:
    """List the pairs of two folders.

    Args:
        images: Folder of the scans.
        labels: Folder of the labels.
        values: Meaning of the label values. If None, 1 is pancreas and there are no tumors.
        reading: How to read the scans.

    Raises:
        InputError: A folder is missing or has no NIfTI files, or a file has no partner in the other folder.
    """
    meaning = values or LabelValues()
    return Listing([FolderCase(pair, meaning, reading) for pair in pair_cases(images, labels)])
