"""Choose one CT series of a study, and check that its slices form one scan."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.frames import is_multi_frame, parse_frames
from cascade_rt.scans.dicom.headers import Header, dicom_gate
from cascade_rt.scans.dicom.listing import Listing, open_listing
from cascade_rt.scans.dicom.pixels import check_pixels, read_stored
from cascade_rt.scans.dicom.slices import Slice, parse_slice
from cascade_rt.scans.dicom.stack import spacing_mm, stack

_KERNEL = re.compile(r"[\w+./ -]{1,16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What tells a series from the others of its study, without anything about the patient."""

    uid: str
    number: int
    """The number of the series, or its rank in the study where numbers are missing or not unique."""
    slices: int
    spacing_mm: float | None
    kernel: str | None
    has_contrast: bool

    def __str__(self) -> str:
        spacing = "" if self.spacing_mm is None else f", {self.spacing_mm:.3g} mm apart"
        kernel = "" if self.kernel is None else f", kernel {self.kernel}"
        contrast = "with" if self.has_contrast else "without"
        return f"{self.number} ({self.slices} slices{spacing}{kernel}, {contrast} contrast)"


@contextmanager
def open_series(path: Path, wanted: str | None) -> Iterator[tuple[Slice, ...]]:
    """Read the headers of a scan, choose a series, and check it. Pixels can be read until the `with` block ends.

    Args:
        path: A folder, a zip archive, or a DICOM file.
        wanted: The UID or the number of the series; None if there is only one.

    Yields:
        The slices, sorted along their normal.

    Raises:
        InputError: There is no CT series or more than one, or the chosen one is not a regular stack of slices.
        BackendUnavailableError: pydicom, or a decoder for the pixels, is not installed.
    """
    with open_listing(path) as listing:
        check_found(path, listing)
        yield checked_slices(str(path), listing, choose(str(path), listing, wanted))


def check_found(path: Path, listing: Listing) -> None:
    """Refuse a path without CT series."""
    if listing.series:
        return
    if path.is_dir() and not listing.others:
        sentence = "is a folder, not a regular file; choose a .nii or .nii.gz file, or a folder with DICOM files"
        raise InputError(f"{path}: {sentence}", code="E_NOT_A_FILE")
    found = f"only {', '.join(sorted(listing.others))}" if listing.others else "no DICOM files"
    raise InputError(f"{path}: contains no CT series ({found}); choose the folder of one CT series", code="E_NOT_CT")


def choose(shown: str, listing: Listing, wanted: str | None) -> str:
    """Return the UID of the series to read.

    Raises:
        InputError: There are several and none was chosen, or the chosen one is not there.
    """
    if wanted is None and len(listing.series) == 1:
        return next(iter(listing.series))
    if wanted in listing.series:
        return str(wanted)
    facts = describe(listing)
    for series in facts:
        if wanted == str(series.number):
            return series.uid
    count = "1 CT series" if len(facts) == 1 else f"{len(facts)} CT series"
    reason = "" if wanted is None else ", none of them the one that was chosen"
    listed = ", ".join(map(str, facts))
    raise InputError(
        f"{shown}: contains {count}{reason}; choose one by its number with `series`: {listed}", code="E_SERIES"
    )


def describe(listing: Listing) -> list[SeriesFacts]:
    """Describe all series of a study, sorted by number."""
    numbers = [_number(headers[0]) for headers in listing.series.values()]
    is_numbered = None not in numbers and len(set(numbers)) == len(numbers)
    ranks = {uid: rank for rank, uid in enumerate(sorted(listing.series), start=1)}
    facts = [
        _facts(uid, headers, number if is_numbered and number is not None else ranks[uid])
        for (uid, headers), number in zip(listing.series.items(), numbers, strict=True)
    ]
    return sorted(facts, key=lambda series: series.number)


def _facts(uid: str, headers: Sequence[Header], number: int) -> SeriesFacts:
    try:
        slices = _parsed(headers)
        count, spacing = len(slices), spacing_mm(slices) if slices else None
    except InputError:
        # Whoever chooses this series learns what is wrong with it.
        count, spacing = len(headers), None
    with dicom_gate(headers[0].file.shown):
        dataset = headers[0].dataset
        kernel = dataset.get("ConvolutionKernel") or ""
        kernel = str(kernel if isinstance(kernel, str) else kernel[0])
        has_contrast = any(header.dataset.get("ContrastBolusAgent") for header in headers[:1])
    return SeriesFacts(uid, number, count, spacing, kernel if _KERNEL.fullmatch(kernel) else None, has_contrast)


def _number(header: Header) -> int | None:
    with dicom_gate(header.file.shown):
        number = header.dataset.get("SeriesNumber")
        return None if number in (None, "") else int(number)


def checked_slices(shown: str, listing: Listing, uid: str) -> tuple[Slice, ...]:
    """Return the slices of a series, sorted along their normal.

    Raises:
        InputError: The slices do not form one scan, or cannot be decoded.
        BackendUnavailableError: A decoder for the pixels is not installed.
    """
    if uid:
        listing.check_strangers(uid)
    headers = listing.series[uid]
    for header in headers:
        check_pixels(header)
    check_owner(shown, headers)
    _check_frame_of_reference(shown, headers)
    slices = _parsed(headers)
    if not slices:
        raise InputError(f"{shown}: contains no CT series (only localizer); choose another folder", code="E_NOT_CT")
    return stack(shown, slices, has_same_pixels, allow_tilt=True)


def has_same_pixels(first: Slice, second: Slice) -> bool:
    """Return whether two slices have the same values. Raises InputError if they cannot be decoded."""
    return first.rescale == second.rescale and np.array_equal(read_stored(first), read_stored(second))


def _parsed(headers: Iterable[Header]) -> list[Slice]:
    slices = []
    for header in headers:
        slices += parse_frames(header) if is_multi_frame(header.dataset) else [parse_slice(header)]
    return slices


def owner_of(header: Header) -> tuple[str, ...]:
    """Return what is the same in all files of one series, and differs between patients and studies."""
    with dicom_gate(header.file.shown):
        return tuple(str(header.dataset.get(keyword) or "") for keyword in ("StudyInstanceUID", "PatientID"))


def check_owner(shown: str, headers: Iterable[Header]) -> None:
    """Refuse files that have the UID of one series, but are of several studies or patients.

    Raises:
        InputError: Programs that remove names may give the same UID to series of several patients.
    """
    owners = {owner_of(header) for header in headers}
    if len(owners) > 1:
        sentence = f"its slices have the UID of one series but are of {len(owners)} studies or patients"
        raise InputError(f"{shown}: {sentence}; choose the folder of one of them", code="E_SLICES_DIFFER")


def _check_frame_of_reference(shown: str, headers: Sequence[Header]) -> None:
    with dicom_gate(shown):
        frames = {str(header.dataset.get("FrameOfReferenceUID") or "") for header in headers}
    if len(frames) > 1:
        sentence = f"its slices have {len(frames)} frames of reference, so their positions cannot be compared"
        raise InputError(f"{shown}: {sentence}; keep the slices of one acquisition", code="E_SLICES_DIFFER")
