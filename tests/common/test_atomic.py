"""A file is there completely or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from cascade_rt.common.atomic import atomic_write, remove_leftovers, write_bytes
from cascade_rt.common.outputs import probe_folder
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
    assert sizes[0] == len(b"new")


@pytest.mark.skipif(os.name != "posix", reason="folders have no fsync elsewhere")
def test_the_folder_is_synced_after_the_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, list[str]]] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), files_in(tmp_path)))
    )
    atomic_write(tmp_path / "result", write_new, overwrite=False)
    assert seen[-1] == (True, ["result"])


def test_a_folder_that_does_not_support_fsync_is_not_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse_folders)
    atomic_write(tmp_path / "result", write_new, overwrite=False)
    assert files_in(tmp_path) == ["result"]


@pytest.mark.skipif(os.name != "posix", reason="folders have no fsync elsewhere")
def test_a_new_file_whose_folder_cannot_be_flushed_is_taken_away_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise_io_error()

    monkeypatch.setattr(os, "fsync", fail_on_folders)
    with pytest.raises(OutputError, match="Input/output error"):
        atomic_write(tmp_path / "result", write_new, overwrite=False)
    assert files_in(tmp_path) == []


def test_an_existing_file_is_replaced_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b"old")
    atomic_write(tmp_path / "result", write_new, overwrite=True)
    assert (tmp_path / "result").read_bytes() == b"new"


def test_an_existing_file_is_refused_otherwise(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b"old")
    with pytest.raises(OutputExistsError, match="result: already exists"):
        atomic_write(tmp_path / "result", write_new, overwrite=False)


def test_a_broken_link_counts_as_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "result").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError, match="result: already exists"):
        atomic_write(tmp_path / "result", write_new, overwrite=False)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist; create it"):
        atomic_write(tmp_path / "missing" / "result", write_new, overwrite=False)


def test_a_folder_is_refused_as_the_result(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; choose a file name"):
        atomic_write(tmp_path, write_new, overwrite=True)


def test_a_full_disk_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"result: cannot be written \(No space left on device\)"):
        atomic_write(tmp_path / "result", write_until_disk_full, overwrite=False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_has_its_own_code(number: int, tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError) as caught:
        atomic_write(tmp_path / "result", write, overwrite=False)
    assert (caught.value.code, caught.value.exit_code, files_in(tmp_path)) == ("E_NOSPACE", 6, [])


@pytest.mark.skipif(os.name != "posix", reason="limits of processes are those of POSIX")
def test_a_real_limit_of_the_system_leaves_no_half_file(tmp_path: Path) -> None:
    script = (
        "import pathlib, resource, sys\n"
        "from cascade_rt.common.atomic import write_bytes\n"
        "from cascade_rt.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_bytes(pathlib.Path(sys.argv[1], 'result'), bytes(100_000), overwrite=False)\n"
        "except OutputError as error:\n"
        "    print(error.code)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (run.stdout.strip(), files_in(tmp_path)) == ("E_NOSPACE", [])


def test_a_folder_that_takes_files_is_left_as_it_was(tmp_path: Path) -> None:
    probe_folder(tmp_path)
    assert files_in(tmp_path) == []


def test_a_full_disk_is_seen_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError) as caught:
        probe_folder(tmp_path)
    assert caught.value.code == "E_NOSPACE"


def test_only_leftovers_of_the_named_file_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".other.tmp").touch()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", raise_io_error)
        with pytest.raises(KeyboardInterrupt):
            atomic_write(tmp_path / "result", write_until_interrupted, overwrite=False)
    assert len(files_in(tmp_path)) == 2
    remove_leftovers(tmp_path / "another result")
    assert len(files_in(tmp_path)) == 2
    remove_leftovers(tmp_path / "result")
    assert files_in(tmp_path) == [".other.tmp"]


def test_a_name_that_the_system_rejects_is_reported(tmp_path: Path) -> None:
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
    with pytest.raises(OutputExistsError, match="result: already exists"):
        write_bytes(tmp_path / "result", b"new", overwrite=False)
    assert (tmp_path / "result").read_bytes() == b"old"
