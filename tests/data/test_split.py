"""A split depends on the names and the seed alone, and no case is on both sides."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.data.split import Split, draw_split, read_split, write_split
from cascade_rt.errors import InputError, OutputExistsError, UsageError

NAMES = [f"pancreas_{number:03d}" for number in range(40)]


@given(st.permutations(NAMES), st.integers(0, 1000), st.integers(1, 39))
def test_every_case_is_on_one_side(names: list[str], seed: int, test_cases: int) -> None:
    split = draw_split("msd", names, test_cases, seed)
    assert sorted((*split.train, *split.test)) == NAMES
    assert len(split.test) == test_cases
    assert split == draw_split("msd", NAMES, test_cases, seed)


def test_a_seed_gives_the_split_it_has_always_given() -> None:
    assert draw_split("msd", NAMES[:8], 2, 0).test == ("pancreas_004", "pancreas_006")


def test_another_seed_is_another_split() -> None:
    assert draw_split("msd", NAMES, 10, 0) != draw_split("msd", NAMES, 10, 1)


@pytest.mark.parametrize("test_cases", [0, 40])
def test_both_sides_need_a_case(test_cases: int) -> None:
    with pytest.raises(UsageError, match=f"{test_cases} of 40 cases cannot be test cases"):
        draw_split("msd", NAMES, test_cases, 0)


def test_a_split_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    split = draw_split("msd", NAMES, 10, 3)
    write_split(tmp_path, split)
    assert read_split(tmp_path, "msd") == split


def test_a_split_is_never_replaced(tmp_path: Path) -> None:
    write_split(tmp_path, draw_split("msd", NAMES, 10, 3))
    with pytest.raises(OutputExistsError):
        write_split(tmp_path, draw_split("msd", NAMES, 10, 4))


def test_an_unprepared_folder_points_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"is not a prepared store .* run: cascade-rt prepare --dataset nih DATA -o STORE"
    ):
        read_split(tmp_path, "nih")


def test_a_store_of_another_data_set_says_which(tmp_path: Path) -> None:
    write_split(tmp_path, Split("msd", 0, ("a",), ("b",)))
    with pytest.raises(UsageError, match="contains cases of 'msd'; use `dataset=msd`"):
        read_split(tmp_path, "nih")


@pytest.mark.parametrize(
    "changes",
    [
        *({"train": ["a", "b"]}, {"test": []}, {"seed": "x"}, {"seed": True}, {"seed": -1}, {"train": None}),
        *({"train": "cd"}, {"train": ["../../a"]}, {"train": [{}]}, {"patients": 3}, {"dataset": 3}),
    ],
    ids=[
        *("twice", "empty", "seed", "yes for a seed", "seed below 0", "not a list"),
        *("text", "another folder", "no text", "patients", "dataset"),
    ],
)
def test_a_damaged_split_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    document = {"dataset": "msd", "seed": 0, "train": ["a"], "test": ["b"]} | changes
    (tmp_path / "split.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"split.json: cannot be read"):
        read_split(tmp_path, "msd")
