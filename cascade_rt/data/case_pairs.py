"""Pair the scans and true labels of two folders by name, and check them before the work begins."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cascade_rt.common.arguments import as_path
from cascade_rt.common.labels import ORGAN_LABEL, TUMOR_LABEL
from cascade_rt.common.shown_paths import plain_text
from cascade_rt.errors import CascadeError, InputError, UsageError
from cascade_rt.scans.dicom.listing import files_in_folder
from cascade_rt.scans.dicom.reader import scan_name
from cascade_rt.scans.grids import CanonicalGrid
from cascade_rt.scans.names import SCAN_SUFFIXES, is_scan_name, split_suffix
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import read_grid
from cascade_rt.scans.volume import LabelImage, Volume, read_labels

CHANNEL_SUFFIX = "_0000"
"""What nnU-Net appends to the name of a case's first (here only) image."""
_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The values of pancreas and tumor in label files. All other values are background."""

    organ: tuple[int, ...] = (ORGAN_LABEL,)
    """Pancreas."""
    tumor: tuple[int, ...] = ()
    """Tumor of the pancreas."""

    def __post_init__(self) -> None:
        named = (*self.organ, *self.tumor)
        if not self.organ or min(named) < 1 or max(named) > 255:
            raise UsageError(f"pancreas and tumor labels must be numbers from 1 to 255, got {named}")
        if len(set(named)) != len(named):
            raise UsageError(f"labels must not repeat, got pancreas {self.organ} and tumor {self.tumor}")

    def translate(self, label: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Map the values of a label file to 0 background, 1 pancreas, 2 tumor. The shape is unchanged."""
        table = np.zeros(256, dtype=np.uint8)
        table[[*self.organ]] = ORGAN_LABEL
        table[[*self.tumor]] = TUMOR_LABEL
        translated: npt.NDArray[np.uint8] = table[label]
        return translated


@dataclass(frozen=True, slots=True)
class CasePair:
    """A scan file and its label file."""

    name: str
    """Name of the label file without its suffix."""
    image: Path
    label: Path
    values: LabelValues | None = None
    """Meaning of the label values. If None, only 0 background, 1 pancreas and 2 tumor are allowed."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Checked pairs."""

    pairs: tuple[CasePair, ...]
    tumor_in_labels: bool
    """Whether any label file marks a tumor. If none does, the labels do not cover tumors (as in NIH)."""


def pair_cases(
    images: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    values: LabelValues | None = None,
    *,
    dicom: bool = False,
) -> tuple[CasePair, ...]:
    """Pair the scan and label files of two folders by name.

    An image belongs to the label of the same name, or of its name without nnU-Net's `_0000`. No other match is
    attempted. Hidden files are ignored, including the `._*` files of macOS.

    Args:
        images: Folder of the scans.
        labels: Folder of the labels.
        values: Meaning of the label values, as in `CasePair`.
        dicom: Whether scans may also be DICOM: subfolders with one study each, .zip archives and .dcm files. The label
            of the subfolder `study1` is `study1.nii.gz`.

    Returns:
        Pairs, sorted by name.

    Raises:
        InputError: A folder is missing or has no images, two files have the same name, or a file has no partner in
            the other folder.
    """
    image_files = _image_files(as_path("images", images), is_scan_name, dicom=dicom)
    label_files = _image_files(as_path("labels", labels), _is_label_name)
    pairs: dict[str, CasePair] = {}
    alone = []
    for image_name, image in image_files.items():
        name = _label_name(image_name, label_files)
        if name is None:
            alone.append(image_name)
            continue
        if name in pairs:
            raise InputError(f"{pairs[name].image} and {image} both belong to {label_files[name]}; remove one of them")
        pairs[name] = CasePair(name, image, label_files[name], values)
    problems = (("images without a label", alone), ("labels without an image", sorted(label_files.keys() - pairs)))
    if any(names for _, names in problems):
        found = "; ".join(f"{what}: {_shorten(names)}" for what, names in problems if names)
        raise InputError(f"{images}, {labels}: {found}; give an image and its label the same name")
    return tuple(pairs[name] for name in sorted(pairs))


def check_pairs(
    pairs: Sequence[CasePair],
    *,
    reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
    on_pair: Callable[[], None] = lambda: None,
) -> Cohort:
    """Check that all pairs can be evaluated, before the work begins.

    Each label file is read completely, to check its values and that its grid is that of its scan. Only the header of
    the scan is read, which is cheap. Damage behind the header surfaces when the scan is processed.

    Args:
        pairs: The result of `pair_cases`.
        reading: User options for what the scan files do not state.
        on_pair: Called after each pair.

    Raises:
        InputError: Some pairs cannot be evaluated. The message has a line for each.
    """
    problems, tumor_in_labels = [], False
    for pair in pairs:
        try:
            tumor_in_labels |= bool((read_truth(pair, read_grid(pair.image, reading)).voxels == TUMOR_LABEL).any())
        except CascadeError as error:
            problems.append(plain_text(str(error)))
        on_pair()
    if problems:
        lines = "\n  ".join(problems)
        raise InputError(f"{len(problems)} of {len(pairs)} cases cannot be evaluated\n  {lines}")
    return Cohort(tuple(pairs), tumor_in_labels)


def read_truth(pair: CasePair, like: Volume | CanonicalGrid) -> LabelImage:
    """Read the true labels `[z, row, col]` of a scan: 0 background, 1 pancreas, 2 tumor.

    Raises:
        InputError: As in `read_labels`, or the file has an unknown label value, or none of the named values.
    """
    labels = read_labels(pair.label, like=like)
    if pair.values is not None:
        return replace(labels, voxels=translate_labels(labels.voxels, pair.values, pair.label))
    highest = labels.voxels.max()
    if highest > TUMOR_LABEL:
        raise InputError(
            f"{pair.label}: contains label {highest}; "
            "labels are 0 (background), 1 (pancreas) and 2 (tumor); map others with `organ` and `tumor`"
        )
    return labels


def translate_labels(label: npt.NDArray[np.uint8], values: LabelValues, path: Path) -> npt.NDArray[np.uint8]:
    """Map the values of a label file to 0, 1 and 2.

    Raises:
        InputError: The file has labels, but none of the named values.
    """
    translated = values.translate(label)
    if label.any() and not translated.any():
        found = ", ".join(str(value) for value in np.unique(label) if value)
        raise InputError(
            f"{path}: contains labels {found}, none of them selected; choose the pancreas label with `organ`"
        )
    return translated


def _is_label_name(name: str) -> bool:
    return bool(split_suffix(name)[1])


def _image_files(folder: Path, is_wanted: Callable[[str], bool], *, dicom: bool = False) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; choose the one with the images")
    files: dict[str, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        sentence = f"the folder cannot be read ({error.strerror}); check its permissions"
        raise InputError(f"{folder}: {sentence}", code="E_READ") from error
    for path in paths:
        is_file = is_wanted(path.name)
        if path.name.startswith(".") or not (is_file or (dicom and _is_dicom(path))):
            continue
        name = split_suffix(path.name)[0] if is_file else scan_name(path)
        if name in files:
            raise InputError(f"{files[name]} and {path}: both are case {name}; remove one of them")
        files[name] = path
    if not files:
        raise InputError(f"{folder}: contains no images ({', '.join(SCAN_SUFFIXES)}); choose another folder")
    return files


def _is_dicom(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix.lower() in {".dcm", ".zip"}
    try:
        return next(files_in_folder(path), None) is not None
    except InputError:
        # Whoever reads the scan says what is wrong with it.
        return True


def _label_name(image_name: str, labels: Mapping[str, Path]) -> str | None:
    candidates = (image_name, image_name.removesuffix(CHANNEL_SUFFIX))
    return next((name for name in candidates if name in labels), None)


def _shorten(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN_NAMES} more" if len(listed) > _SHOWN_NAMES else ""
    return ", ".join(map(plain_text, listed[:_SHOWN_NAMES])) + more
