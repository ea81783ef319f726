"""A run goes on with the cases that it names and no others, and no store of patients is taken for one of phantoms."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cascade_rt.config import load_config
from cascade_rt.data.fingerprint import fingerprint
from cascade_rt.data.slices import write_case
from cascade_rt.errors import InputError, UsageError
from cascade_rt_cli.main import main
from tests.data_trees import anatomy, nih_tree

SMALL = ("--base-width", 8, "--epochs", 1, 0, 0)


def cascade_rt(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def store_of(folder: Path, numbers: tuple[int, ...]) -> Path:
    data, labels = nih_tree(folder, numbers)
    result = cascade_rt("prepare", "--dataset", "nih", data, "--labels", labels, "-o", folder / "store")
    assert result.exit_code == 0, result.output
    return folder / "store"


def test_a_run_is_not_resumed_on_as_many_other_patients(tmp_path: Path) -> None:
    first, second = (store_of(tmp_path / name, numbers) for name, numbers in (("a", (1, 2, 3)), ("b", (4, 5, 6))))
    command = ("train", "--dataset", "nih", "-o", tmp_path / "run", *SMALL)
    assert cascade_rt(*command, first).exit_code == 0

    result = cascade_rt(*command, second, "--resume")

    assert result.exit_code == 2
    assert "was trained on different data" in result.output


def test_resuming_without_a_checkpoint_says_that_it_starts_over(tmp_path: Path) -> None:
    store = store_of(tmp_path, (1, 2, 3))

    result = cascade_rt("train", "--dataset", "nih", store, "-o", tmp_path / "run", *SMALL, "--resume")

    assert result.exit_code == 0, result.output
    assert "has no checkpoint to resume from" in result.output


def test_training_says_what_stage_2_learns_if_no_case_has_a_tumor(tmp_path: Path) -> None:
    store = store_of(tmp_path, (1, 2, 3))

    result = cascade_rt("train", "--dataset", "nih", store, "-o", tmp_path / "run", *SMALL)

    assert "no case has a tumor: stage 2 learns the pancreas too" in result.output


def test_a_store_of_patients_is_not_mistaken_for_phantoms(tmp_path: Path) -> None:
    store = store_of(tmp_path, (1, 2, 3))
    before = sorted(store.iterdir())

    result = cascade_rt("train", store, "-o", tmp_path / "run", *SMALL)

    assert result.exit_code == 2
    assert "cascade-rt train --dataset msd|nih|folder STORE" in result.output
    assert sorted(store.iterdir()) == before


def test_equal_cases_have_one_fingerprint_in_any_store_and_order(tmp_path: Path) -> None:
    for store in ("a", "b"):
        for seed in (1, 2):
            write_case(tmp_path / store, f"case{seed}", *anatomy(seed), (2.5, 0.8, 0.8))

    assert fingerprint(tmp_path / "a", ["case1", "case2"]) == fingerprint(tmp_path / "b", ["case2", "case1"])


def test_another_image_has_another_fingerprint(tmp_path: Path) -> None:
    for store, seed in (("a", 1), ("b", 2)):
        write_case(tmp_path / store, "case", *anatomy(seed), (2.5, 0.8, 0.8))

    assert fingerprint(tmp_path / "a", ["case"]) != fingerprint(tmp_path / "b", ["case"])


def test_a_case_that_does_not_say_what_it_holds_has_no_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "case.json").write_text("[]")

    with pytest.raises(InputError, match="prepare the case again"):
        fingerprint(tmp_path, ["case"])


def test_a_wrong_value_of_a_config_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[train]\npatch = "128"')

    with pytest.raises(UsageError, match=r"mine\.toml: train\.patch must be of type int"):
        load_config(path)
