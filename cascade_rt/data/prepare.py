"""Prepare a case store from the files of a data set: check all cases, convert each once, and split them."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cascade_rt.data.inputs import content_of, differences, is_recorded, record_inputs
from cascade_rt.data.slices import has_case, is_intact, read_source, write_case
from cascade_rt.data.split import (
    FILE_NAME,
    Split,
    check_patients,
    count_patients,
    draw_split,
    has_split,
    read_case_list,
    read_split,
    write_split,
)
from cascade_rt.errors import InputError, PartialFailureError, UsageError
from cascade_rt.scans.volume import LabelImage, Volume

_MOST_SHOWN = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True)
class SourceCase:
    """A case as read from the files of a data set."""

    volume: Volume
    label: npt.NDArray[np.uint8]
    """`[z, row, col]`: 0 background, 1 pancreas, 2 tumor."""
    source: dict[str, Any]
    """Record of what the case was read from, as plain values. File names are without folders."""
    warnings: tuple[str, ...] = ()


def of_label(labels: LabelImage) -> tuple[str, ...]:
    """Return the warnings about a label file, prefixed so that they are not mistaken for warnings about its scan."""
    return tuple(f"its label file: {warning}" for warning in labels.warnings)


class CaseSource(Protocol):
    """The files of one case."""

    @property
    def name(self) -> str:
        """Name of the case in the store."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Inputs of the case: its `image` (a file, or the folder of a DICOM series) and its `label`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All other settings that affect the converted case, as plain values."""

    def check(self) -> None:
        """Check everything that can be checked without reading voxels.

        Raises:
            InputError: The case cannot be used. The message names it and says what to do.
        """

    def read(self) -> SourceCase:
        """Read scan and label.

        Raises:
            InputError: The case cannot be used. The message names it and says what to do.
        """


@dataclass(frozen=True, eq=False, slots=True)
class Listing:
    """The cases and problems found in the folder of a data set."""

    cases: Sequence[CaseSource]
    problems: Sequence[str] = ()
    """Sentences about cases that cannot be used. They stop the preparation before anything is converted."""
    notes: Sequence[str] = ()
    """Sentences for the user to read, which do not stop the preparation."""


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """How to split the cases into training and test."""

    dataset: str
    """Name of the data set."""
    test_share: float
    """Fraction of the cases used for the test if `test_cases` is not given."""
    test_cases: int | None = None
    """Number of test cases."""
    seed: int | None = None
    """Seed of the split, or None for 0."""
    patients: str | None = None
    """Regular expression for the patient in a case's name, if patients have several cases."""
    given: Path | None = None
    """File with a user-defined split (see `read_case_list`). Nothing is then drawn."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """Result of a preparation."""

    split: Split
    converted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Cases that were already in the store."""
    warnings: list[str] = field(default_factory=list)
    flips: Counter[str] = field(default_factory=Counter)
    """How often each label flip was applied to the newly converted cases."""


def prepare_cases(
    listing: Listing,
    store: Path,
    request: SplitRequest,
    *,
    verify: bool = False,
    on_check: Callable[[str], None] = lambda _: None,
    on_case: Callable[[str], None] = lambda _: None,
) -> Preparation:
    """Check all cases, convert those missing from a store, and split them.

    Args:
        listing: The cases found.
        store: Folder of the case store, created if missing. Cases already in it are kept if they were made from the
            same files with the same settings.
        request: How to split. The split is written once all cases are converted. An existing split is kept.
        verify: Read finished cases completely, and reconvert those whose arrays have changed since they were written.
        on_check: Called with the name of each case after its check.
        on_case: Called with the name of each case after it was kept or converted.

    Raises:
        InputError: Some cases cannot be used, found before any is converted. The message names all of them.
        UsageError: The cases cannot be split as requested, or the store has a different split, or cases made from
            other files or with other settings.
        PartialFailureError: Some cases proved unusable when they were read. The others are in the store.
        OutputError: The store cannot be written.
        BackendUnavailableError: A package needed to read the files is not installed.
    """
    finished, notes = _check_all(listing, store, verify, on_check)
    done = Preparation(_plan_split(listing, store, request), warnings=[*listing.notes, *notes])
    failures = []
    for case in listing.cases:
        if case.name in finished:
            done.kept.append(case.name)
        else:
            failures += _convert(case, store, done)
        on_case(case.name)
    if failures:
        head = f"{len(failures)} of {len(listing.cases)} cases were not converted; fix or remove them and run it again"
        raise PartialFailureError(_listed(head, failures))
    done.warnings.extend(_doubles(listing, store, done.split))
    if not has_split(store):
        write_split(store, done.split)
    return done


def _doubles(listing: Listing, store: Path, split: Split) -> list[str]:
    """Warn about cases made from the same scan, noting if one is for training and the other for the test."""
    first: dict[str, str] = {}
    doubts = []
    for case in listing.cases:
        image = content_of(read_source(store, case.name), "image")
        if image is None or (other := first.setdefault(image, case.name)) == case.name:
            continue
        is_torn = (case.name in split.test) != (other in split.test)
        where = ", one in training and one in test" if is_torn else ""
        doubts.append(f"cases {other} and {case.name} have the same scan{where}; remove one of them")
    return doubts


def _check_all(
    listing: Listing, store: Path, verify: bool, on_check: Callable[[str], None]
) -> tuple[set[str], list[str]]:
    """Check every case. Return the names of those that need no conversion, and notes about them."""
    finished = {case.name for case in listing.cases if has_case(store, case.name)}
    problems, others, unrecorded = list(listing.problems), [], 0
    for case in listing.cases:
        if verify and case.name in finished and not is_intact(store, case.name):
            finished.remove(case.name)
        if case.name in finished:
            source = read_source(store, case.name)
            others += _differences_of(case, source)
            unrecorded += not is_recorded(source)
        else:
            problems += _problems_of(case)
        on_check(case.name)
    if problems:
        raise InputError(_listed("nothing was converted", problems))
    if others:
        remedy = f"prepare into another store, or delete the folders of these cases from {store} to convert them again"
        raise UsageError(_listed(f"nothing was converted; {remedy}", others))
    if not unrecorded:
        return finished, []
    sentence = "kept without checking their source files, which an earlier version did not record"
    return finished, [f"{unrecorded} cases of the store were {sentence}"]


def _plan_split(listing: Listing, store: Path, request: SplitRequest) -> Split:
    """Draw a split, or return the existing one if it matches the request."""
    names = sorted(case.name for case in listing.cases)
    given = None if request.given is None else read_case_list(request.given, request.dataset, names)
    if given is not None:
        given = replace(given, patients=request.patients)
        check_patients(given, request.patients, str(request.given))
    if not has_split(store):
        return given or _draw(names, request)
    split = read_split(store, request.dataset)
    patients = request.patients or split.patients
    counted = "cases" if patients is None else "patients"
    agreements = {
        f"the cases of {request.given}": given is None or (split.train, split.test) == (given.train, given.test),
        "these cases": sorted((*split.train, *split.test)) == names,
        f"seed {request.seed}": request.seed in (None, split.seed),
        f"{request.test_cases} test {counted}": request.test_cases in (None, count_patients(split.test, patients)),
    }
    for what, agrees in agreements.items():
        if not agrees:
            raise UsageError(
                f"{store / FILE_NAME}: contains the split {split}, which does not match {what}; "
                "delete it to draw another, but never test a model on cases it was trained on"
            )
    check_patients(split, patients, str(store / FILE_NAME))
    return split


def _draw(names: Sequence[str], request: SplitRequest) -> Split:
    drawn = partial(draw_split, request.dataset, names, seed=request.seed or 0, patients=request.patients)
    if request.test_cases is not None:
        return drawn(request.test_cases)
    return drawn(max(1, round(request.test_share * count_patients(names, request.patients))))


def _problems_of(case: CaseSource) -> list[str]:
    try:
        case.check()
    except InputError as error:
        return [f"case {case.name}: {error}"]
    return []


def _differences_of(case: CaseSource, source: Mapping[str, Any]) -> list[str]:
    found = differences(source, case.settings, case.files)
    return [f"case {case.name}: was made with {' and '.join(found)}"] if found else []


def _convert(case: CaseSource, store: Path, done: Preparation) -> list[str]:
    """Convert a case into the store. Return the reasons for a failure, or an empty list."""
    try:
        # Recorded before reading, so that a file changed meanwhile is not mistaken for the one that was read.
        inputs = record_inputs(case.files)
        found = case.read()
    except InputError as error:
        return [f"case {case.name}: {error}"]
    source = {**found.source, **case.settings, **inputs}
    write_case(store, case.name, found.volume.voxels, found.label, found.volume.spacing_mm, source)
    _log.info("converted case %s, %s voxels, into %s", case.name, found.volume.voxels.shape, store)
    done.converted.append(case.name)
    done.warnings.extend(f"case {case.name}: {warning}" for warning in (*found.volume.warnings, *found.warnings))
    if "label_flip" in found.source:
        done.flips[found.source["label_flip"]] += 1
    return []


def _listed(head: str, sentences: Sequence[str]) -> str:
    """Join sentences under a heading. A single one stays on one line, and a long list is truncated."""
    if len(sentences) == 1:
        return f"{sentences[0]} ({head})"
    more = [f"and {len(sentences) - _MOST_SHOWN} more"] if len(sentences) > _MOST_SHOWN else []
    return "\n  ".join([f"{len(sentences)} problems; {head}", *sentences[:_MOST_SHOWN], *more])
