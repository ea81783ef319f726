"""A file is there completely or not at all."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from cascade_rt.atomic import atomic_write, write_bytes
from cascade_rt.errors import OutputError, OutputExistsError


def write_new(file: BinaryIO) -> None:
    file.write(b"new")


def write_until_disk_full(file: BinaryIO) -> None:
    file.write(b"half of it")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_until_interrupted(file: BinaryIO) -> None:
    file.write(b"half of it")
    raise KeyboardInterrupt("Ctrl-C")


def raise_io_error(*arguments: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_gets_the_content(tmp_path: Path) -> None:
    atomic_write(tmp_path / "result", write_new, overwrite=False)
    assert (tmp_path / "result").read_bytes() == b"new"


def test_only_the_result_is_left_in_the_folder(tmp_path: Path) -> None:
    atomic_write(tmp_path / "result", write_new, overwrite=False)
    assert files_in(tmp_path) == ["result"]


def test_a_path_without_a_folder_goes_into_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    atomic_write("result", write_new, overwrite=False)
    assert files_in(tmp_path) == ["result"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are those of POSIX")
def test_the_result_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    atomic_write(tmp_path / "result", write_new, overwrite=False)
    assert stat.filemode((tmp_path / "result").stat().st_mode) == stat.filemode((tmp_path / "plain").stat().st_mode)


def test_the_old_file_is_whole_while_the_new_one_is_written(tmp_path: Path) -> None:
    result = tmp_path / "result"
    result.write_bytes(b"old")
    seen: list[bytes] = []

    def write(file: BinaryIO) -> None:
        file.write(b"half of it")
        seen.append(result.read_bytes())

    atomic_write(result, write, overwrite=True)
    assert seen == [b"old"]


def test_all_content_has_left_the_program_before_the_disk_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    atomic_write(tmp_path / "result", write_new, overwrite=False)
    assert sizes == [len(b"new")]


def test_an_existing_file_is_replaced_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b"old")
    atomic_write(tmp_path / "result", write_new, overwrite=True)
    assert (tmp_path / "result").read_bytes() == b"new"


def test_an_existing_file_is_refused_otherwise(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b"old")
    with pytest.raises(OutputExistsError, match="result: is already there"):
        atomic_write(tmp_path / "result", write_new, overwrite=False)


def test_a_link_to_nowhere_counts_as_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "result").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError, match="result: is already there"):
        atomic_write(tmp_path / "result", write_new, overwrite=False)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist; create it"):
        atomic_write(tmp_path / "missing" / "result", write_new, overwrite=False)


def test_a_folder_is_refused_as_the_result(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; name a file"):
        atomic_write(tmp_path, write_new, overwrite=True)


def test_a_full_disk_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"result: cannot be written \(No space left on device\)"):
        atomic_write(tmp_path / "result", write_until_disk_full, overwrite=False)


def test_a_name_that_the_system_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        atomic_write(tmp_path / ("x" * 300), write_new, overwrite=False)


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        atomic_write(tmp_path / "result", write_until_interrupted, overwrite=False)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_system_call_leaves_nothing_behind(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, step, raise_io_error)
    with pytest.raises(OutputError, match="cannot be written"):
        atomic_write(tmp_path / "result", write_new, overwrite=False)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_system_call_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "result").write_bytes(b"old")
    monkeypatch.setattr(os, step, raise_io_error)
    with pytest.raises(OutputError, match="cannot be written"):
        atomic_write(tmp_path / "result", write_new, overwrite=True)
    assert (tmp_path / "result").read_bytes() == b"old"


def test_errors_of_the_writer_pass_through(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        atomic_write(tmp_path / "result", write, overwrite=False)


def test_bytes_are_written_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "result", b"new", overwrite=False)
    assert (tmp_path / "result").read_bytes() == b"new"


def test_bytes_replace_an_existing_file_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b"old")
    write_bytes(tmp_path / "result", b"new", overwrite=True)
    assert (tmp_path / "result").read_bytes() == b"new"


def test_bytes_do_not_replace_an_existing_file_otherwise(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b"old")
    with pytest.raises(OutputExistsError, match="result: is already there"):
        write_bytes(tmp_path / "result", b"new", overwrite=False)
    assert (tmp_path / "result").read_bytes() == b"old"
