"""A run that could not be kept is refused before any work is done for it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cascade_rt.errors import OutputError, OutputExistsError
from cascade_rt.training.checkpoint import FILE_NAME
from cascade_rt.training.run_folder import check_run_folder
from cascade_rt_cli.main import main


def test_a_folder_that_does_not_exist_yet_is_accepted_and_not_created(tmp_path: Path) -> None:
    check_run_folder(tmp_path / "runs" / "first", resume=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "notes.txt/run"])
def test_a_run_folder_that_is_or_lies_below_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"notes.txt: is not a folder; choose another folder"):
        check_run_folder(tmp_path / name, resume=True)


def test_a_run_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(Read-only file system\); choose another folder"):
        check_run_folder(tmp_path / "run", resume=False)


def test_an_existing_run_is_accepted_only_for_resuming(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    check_run_folder(tmp_path, resume=True)
    with pytest.raises(OutputExistsError, match="contains a training run; continue it with `resume`"):
        check_run_folder(tmp_path, resume=False)


def test_train_refuses_an_unusable_folder_before_it_makes_phantoms(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    arguments = ["train", str(tmp_path / "cases"), "-o", str(tmp_path / "run"), "--shape", "16", "64", "64"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert (result.exit_code, result.stderr.count("\n")) == (6, 1)
    assert not (tmp_path / "cases").exists()
