"""The split of a store into training and test cases, drawn or given once and saved.

    STORE/split.json    {"dataset": ..., "seed": ..., "train": [names], "test": [names], "patients": regular expression}

Every later command reads this file, so that no test case is ever trained on.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.plain_file import read_plain_file
from cascade_rt.errors import InputError, UsageError

FILE_NAME = "split.json"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Split:
    """The cases of a store in two disjoint parts."""

    dataset: str
    seed: int | None
    """Seed of the draw, or None if the split was given."""
    train: tuple[str, ...]
    test: tuple[str, ...]
    patients: str | None = None
    """Regular expression for the patient in a case's name that the split was made with (see `draw_split`)."""

    def __str__(self) -> str:
        how = "split as listed" if self.seed is None else f"split seed {self.seed}"
        return f"{len(self.train)} training and {len(self.test)} test cases, {how}"


def draw_split(dataset: str, names: Sequence[str], test_cases: int, seed: int, patients: str | None = None) -> Split:
    """Draw the test cases, or the test patients if patients can have several cases.

    Cases are ordered by a hash of seed and name rather than by a random generator, so that the split does not depend on
    library versions. The order of two cases does not depend on which other cases are present.

    Args:
        dataset: Name of the data set.
        names: All cases, in any order.
        test_cases: Number of test cases.
        seed: A different seed gives a different split.
        patients: A regular expression whose match at the beginning of a name is the patient. All cases of a patient
            stay together, and `test_cases` counts patients. If None, each case is a patient.

    Raises:
        UsageError: No case would be left for training or for the test, or `patients` is not a valid regular expression
            or does not match a name.
    """
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(_patient_of(name, patients), []).append(name)
    if not 0 < test_cases < len(members):
        what = "cases" if patients is None else "patients"
        raise UsageError(
            f"{test_cases} of {len(members)} {what} cannot be test {what}; "
            "a split needs at least one training and one test case"
        )
    drawn = sorted(members, key=lambda patient: hashlib.sha256(f"{seed} {patient}".encode()).hexdigest())
    train, test = (
        tuple(sorted(name for patient in part for name in members[patient]))
        for part in (drawn[test_cases:], drawn[:test_cases])
    )
    return Split(dataset, seed, train, test, patients)


def read_case_list(path: Path, dataset: str, names: Sequence[str]) -> Split:
    """Read a user-defined split, `{"train": [names], "test": [names]}`.

    Args:
        path: The JSON file.
        dataset: Name of the data set.
        names: All cases. The two lists must contain each of these once and no other.

    Raises:
        UsageError: The file cannot be read, or is not a valid split of these cases.
    """
    try:
        content = read_plain_file(path, _MOST_BYTES, follow_links=True)
        # Windows editors may put a byte order mark in front.
        document = json.loads(content.decode("utf-8-sig"))
        lists = {part: sorted(_parse_names(document[part])) for part in ("train", "test")}
        split = _parse({**lists, "dataset": dataset, "seed": None})
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise UsageError(
            f'{path}: is not a list of cases ({error}); write {{"train": [names], "test": [names]}}'
        ) from error
    listed = {*split.train, *split.test}
    problems = (("does not list", sorted({*names} - listed)), ("lists unknown cases", sorted(listed - {*names})))
    for what, wrong in problems:
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise UsageError(f"{path}: {what} {', '.join(wrong[:3])}{more}; cases are named after their label files")
    return split


def count_patients(names: Sequence[str], patients: str | None) -> int:
    """Return the number of patients among some cases. See `draw_split`."""
    return len({_patient_of(name, patients) for name in names})


def check_patients(split: Split, patients: str | None, shown: str) -> None:
    """Check that no patient is in both parts of a split, named `shown` in messages. See `draw_split`.

    Raises:
        UsageError: A patient is in both parts.
    """
    trained = {_patient_of(name, patients): name for name in split.train}
    for name in split.test:
        patient = _patient_of(name, patients)
        if patient in trained:
            raise UsageError(
                f"{shown}: patient {patient} is in both parts of the split, with cases {trained[patient]} (train) "
                f"and {name} (test); keep each patient in one part, and never test a model on a patient "
                "it was trained on"
            )


def _patient_of(name: str, patients: str | None) -> str:
    if patients is None:
        return name
    try:
        match = re.match(patients, name)
    except re.error as error:
        raise UsageError(f"{patients!r} is not a regular expression ({error})") from error
    if not match or not match[0]:
        raise UsageError(f"{patients!r} does not match case name {name}; use a pattern that matches every name")
    return match[0]


def write_split(store: Path, split: Split) -> None:
    """Write the split of a store.

    Raises:
        OutputError: The file cannot be written.
        OutputExistsError: The store already has a split.
    """
    write_bytes(store / FILE_NAME, (json.dumps(asdict(split), indent=1) + "\n").encode(), overwrite=False)


def has_split(store: Path) -> bool:
    """Return whether a store has a split, which means that all its cases were converted."""
    return (store / FILE_NAME).is_file()


def read_split(store: Path, dataset: str) -> Split:
    """Read the split of a prepared store.

    Raises:
        UsageError: The folder is not a prepared store, or holds another data set.
        InputError: The file is damaged.
    """
    if not has_split(store):
        raise UsageError(
            f"{store}: is not a prepared store (no {FILE_NAME}); "
            f"run: cascade-rt prepare --dataset {dataset} DATA -o STORE, and train on STORE"
        )
    try:
        split = _parse(json.loads((store / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(
            f"{store / FILE_NAME}: cannot be read ({error}); delete it and prepare the store again"
        ) from error
    if split.dataset != dataset:
        raise UsageError(f"{store}: contains cases of {split.dataset!r}; use `dataset={split.dataset}`")
    return split


def _parse(document: Any) -> Split:
    seed, patients = document["seed"], document.get("patients")
    if seed is not None and (type(seed) is not int or seed < 0):
        raise ValueError("seed is not a non-negative integer")
    if not isinstance(patients, str | None) or not isinstance(document["dataset"], str):
        raise TypeError("dataset and patients must be strings")
    train, test = (tuple(_parse_names(document[part])) for part in ("train", "test"))
    split = Split(document["dataset"], seed, train, test, patients)
    names = (*split.train, *split.test)
    if len(set(names)) != len(names):
        raise ValueError("a case is listed twice")
    if not split.train or not split.test:
        raise ValueError("a part is empty")
    return split


def _parse_names(names: Any) -> list[str]:
    """Check a list of case names. They are also folder names in the store, so no path separators are allowed."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("a part is not a list of names")
    for name in names:
        if name in ("", ".", "..") or Path(name).name != name:
            raise ValueError(f"{name!r} is not a case name")
    return names
