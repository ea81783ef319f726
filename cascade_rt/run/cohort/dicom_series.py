"""Find the DICOM series among the scans of a cohort: one case for each."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cascade_rt.common.folders import FolderContent, walk_folder
from cascade_rt.errors import InputError
from cascade_rt.run.cohort.own_masks import is_own_mask, is_own_probabilities
from cascade_rt.scans.dicom.headers import import_pydicom, read_header
from cascade_rt.scans.dicom.listing import Listing, dicom_files, open_listing
from cascade_rt.scans.dicom.selection import describe, owner_of
from cascade_rt.scans.names import split_suffix

_NAMED = re.compile(r".*\.(dcm|dicom|ima)", re.IGNORECASE)
_UNNAMED = re.compile(r"[^.]*|.*\.\d+")
"""Names without a suffix, or with a number in its place, as in most DICOM archives."""


@dataclass(frozen=True, slots=True)
class SeriesCase:
    """One CT series, or a part of a cohort that may hold some and cannot be read."""

    name: str
    """Relative to what was searched."""
    scan: Path
    """The folder or archive to open."""
    series: str | None
    """The UID of the series in it."""
    refusal: InputError | None = None


@dataclass(slots=True)
class _Part:
    """The images of one series that lie in one folder."""

    folder: Path
    images: set[str]
    """Their SOPInstanceUIDs."""
    number: str
    owner: tuple[str, ...]
    """See `owner_of`."""


@dataclass(slots=True)
class SeriesSearch:
    """Collects the series of the folders and archives below a root."""

    root: Path
    _parts: dict[str, list[_Part]] = field(default_factory=lambda: defaultdict(list))
    _archives: list[SeriesCase] = field(default_factory=list)
    _refused: list[SeriesCase] = field(default_factory=list)

    def add(self, content: FolderContent) -> set[str]:
        """Look for series in one folder, without its subfolders.

        Returns:
            The names of files that need no further attention: slices, and files that lie beside slices.

        Raises:
            BackendUnavailableError: There may be DICOM files, and pydicom is not installed.
        """
        seen = set(self._look_into_archives(content))
        # Broken links are scans that are gone: whoever plans the cases reports them.
        names = [name for name in content.files if may_be_dicom(name) and os.path.exists(content.path / name)]
        if not names:
            return seen
        listing, errors = _list_one_folder(content.path, names)
        for uid, headers in listing.series.items():
            datasets = [header.dataset for header in headers]
            images = {str(dataset.get("SOPInstanceUID") or "") for dataset in datasets}
            number = str(datasets[0].get("SeriesNumber") or "")
            self._parts[uid].append(_Part(content.path, images, number, owner_of(headers[0])))
        wrong = [error for error in errors if listing.series or error.code != "E_NOT_DICOM"]
        if wrong and not listing.series:
            self._refused.append(SeriesCase(self._name(content.path), content.path, None, wrong[0]))
        return seen | (set(names) if listing.series or wrong else set())

    def _look_into_archives(self, content: FolderContent) -> Iterator[str]:
        for name in content.files:
            if name.lower().endswith(".zip") and not name.startswith("."):
                path = content.path / name
                inside = path.relative_to(self.root).with_suffix("").as_posix()
                found = series_of(path, inside)
                self._archives += found
                if found:
                    yield name

    def cases(self) -> list[SeriesCase]:
        """Return a case for each series, sorted by name.

        The images of a series that are divided among folders are one case, named after the folder that has them all. A
        series that is there twice is two cases.
        """
        groups = [(uid, group) for uid, parts in self._parts.items() for group in _grouped(uid, parts)]
        by_folder: dict[Path, list[tuple[str, list[_Part]]]] = defaultdict(list)
        for uid, group in groups:
            by_folder[Path(os.path.commonpath([part.folder for part in group]))].append((uid, group))
        found = []
        for folder, there in by_folder.items():
            names = _unique(self._name(folder), [group[0].number for _, group in sorted(there, key=lambda one: one[0])])
            found += [
                SeriesCase(name, folder, uid)
                for name, (uid, _) in zip(names, sorted(there, key=lambda one: one[0]), strict=True)
            ]
        return sorted([*found, *self._archives, *self._refused], key=lambda case: case.name)

    def _name(self, folder: Path) -> str:
        return self.root.resolve().name if folder == self.root else folder.relative_to(self.root).as_posix()


def series_of(path: Path, name: str) -> list[SeriesCase]:
    """Return a case for each CT series of a study: a folder, a zip archive or a DICOM file. None are no error.

    Args:
        path: The study.
        name: Of the case; with several series, their numbers are appended.

    Raises:
        BackendUnavailableError: pydicom is not installed.
    """
    try:
        with open_listing(path) as listing:
            facts = describe(listing)
    except InputError as error:
        return [SeriesCase(name, path, None, error)]
    names = [name] if len(facts) == 1 else [f"{name}_{series.number}" for series in facts]
    return [SeriesCase(each, path, series.uid) for each, series in zip(names, facts, strict=True)]


def may_be_dicom(name: str) -> bool:
    """Return whether a file is named like a DICOM file."""
    return not name.startswith(".") and bool(_NAMED.fullmatch(name) or _UNNAMED.fullmatch(name))


def is_one_study(folder: Path) -> bool:
    """Return whether a folder holds the DICOM files of one study and no other scans, so that it is one scan.

    Our own results in it, as of an earlier run, change nothing. Looks into one file per subfolder.
    """
    studies: set[str] = set()
    for content in walk_folder(folder, lambda _: None):
        content.folders[:] = [name for name in content.folders if not name.startswith(".")]
        if any(_is_scan_or_label(content.path / name) for name in content.files):
            return False
        study = _study_of(folder, content)
        studies |= set() if study is None else {study}
        if len(studies) > 1:
            return False
    return bool(studies)


def _is_scan_or_label(path: Path) -> bool:
    is_one = not path.name.startswith(".") and bool(split_suffix(path.name)[1])
    return is_one and not (is_own_mask(path) or is_own_probabilities(path))


def _study_of(root: Path, content: FolderContent) -> str | None:
    """Return what tells the study of the first DICOM file of a folder from others; None if there is no such file."""
    for name in filter(may_be_dicom, content.files):
        try:
            (file,) = dicom_files(content.path, [name]) or (None,)
            if file is None or name.upper() == "DICOMDIR":
                continue
            import_pydicom()
            study = str(read_header(file).dataset.get("StudyInstanceUID") or "")
        except InputError:
            study = ""
        # Without a UID, studies are told apart by the folders that hold them.
        return study or f"in {''.join(content.path.relative_to(root).parts[:1])}"
    return None


def _list_one_folder(folder: Path, names: Sequence[str]) -> tuple[Listing, list[InputError]]:
    """Return the series in the files of one folder, and the errors about its other files."""
    listing, errors = Listing(), []
    try:
        files = dicom_files(folder, names)
    except InputError as error:
        # Which of them is damaged is said when the series is read.
        files, errors = [], [error]
        for name in names:
            try:
                files += dicom_files(folder, [name])
            except InputError:
                continue
    if files:
        import_pydicom()
    for file in files:
        try:
            listing.add(read_header(file))
        except InputError as error:
            errors.append(error)
    return listing, errors


def _grouped(uid: str, parts: Sequence[_Part]) -> list[list[_Part]]:
    """Join the parts of one series.

    Parts with the same images are copies, those of several patients have the same UID by mistake, and without UIDs
    nothing is joined.
    """
    groups: list[list[_Part]] = []
    for part in sorted(parts, key=lambda part: part.folder):
        for group in groups:
            is_new = uid and "" not in part.images and all(part.images.isdisjoint(other.images) for other in group)
            if is_new and part.owner == group[0].owner:
                group.append(part)
                break
        else:
            groups.append([part])
    return groups


def _unique(name: str, numbers: Sequence[str]) -> list[str]:
    """Return one name per series of a folder, with the numbers of the series where there are several."""
    if len(numbers) == 1:
        return [name]
    are_numbers = len(set(numbers)) == len(numbers) and all(number.isdecimal() for number in numbers)
    return [f"{name}_{number if are_numbers else rank}" for rank, number in enumerate(numbers, start=1)]
