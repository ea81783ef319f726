"""Which cases of a store are trained on and which are kept for the test: drawn once, by case, and written down.

    STORE/split.json    {"dataset": ..., "seed": ..., "train": [names], "test": [names]}

Every later command reads that file, so that no test case is ever trained on; a split of one's own goes there too.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade_rt.atomic import write_bytes
from cascade_rt.errors import InputError, UsageError

FILE_NAME = "split.json"


@dataclass(frozen=True, slots=True)
class Split:
    """The cases of a store, in two parts that share none."""

    dataset: str
    seed: int
    train: tuple[str, ...]
    test: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.train)} training and {len(self.test)} test cases, split seed {self.seed}"


def draw_split(dataset: str, names: Sequence[str], test_cases: int, seed: int) -> Split:
    """Draw the test cases.

    The order of the hashes of seed and name decides, not a random generator: the split is the same with every version
    of every library, and on however many of the cases it is drawn.

    Args:
        dataset: What the cases are.
        names: All cases; their order does not matter.
        test_cases: How many are for the test.
        seed: Another seed is another split.

    Raises:
        UsageError: There would be no case left to train on, or none for the test.
    """
    if not 0 < test_cases < len(names):
        raise UsageError(
            f"{test_cases} of {len(names)} cases cannot be test cases; "
            "a split needs at least one case to train on and one for the test"
        )
    drawn = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    return Split(dataset, seed, tuple(sorted(drawn[test_cases:])), tuple(sorted(drawn[:test_cases])))


def write_split(store: Path, split: Split) -> None:
    """Write the split of a store.

    Raises:
        OutputError: It cannot be written.
        OutputExistsError: The store has one already.
    """
    write_bytes(store / FILE_NAME, (json.dumps(asdict(split), indent=1) + "\n").encode(), overwrite=False)


def has_split(store: Path) -> bool:
    """Whether a store has a split, which means that all its cases were converted."""
    return (store / FILE_NAME).is_file()


def read_split(store: Path, dataset: str) -> Split:
    """Read the split of a prepared store.

    Raises:
        UsageError: The folder is no prepared store, or one of another data set.
        InputError: The file is damaged.
    """
    if not has_split(store):
        raise UsageError(
            f"{store}: is no prepared store (it has no {FILE_NAME}); "
            f"run: cascade-rt prepare --dataset {dataset} DATA -o STORE, and train on STORE"
        )
    try:
        split = _parse(json.loads((store / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{store / FILE_NAME}: cannot be read ({error}); delete it and prepare the store again"
        ) from error
    if split.dataset != dataset:
        raise UsageError(f"{store}: holds cases of {split.dataset!r}; name them with --dataset {split.dataset}")
    return split


def _parse(document: Any) -> Split:
    split = Split(
        dataset=str(document["dataset"]),
        seed=int(document["seed"]),
        train=tuple(map(str, document["train"])),
        test=tuple(map(str, document["test"])),
    )
    names = (*split.train, *split.test)
    if len(set(names)) != len(names):
        raise ValueError("a case is named twice")
    if not split.train or not split.test:
        raise ValueError("a part is empty")
    return split
