"""Only plain files are read, and never more of one than was asked for."""

import os
from pathlib import Path

import pytest

from cascade_rt.common.plain_file import NotAPlainFileError, read_plain_file


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert read_plain_file(tmp_path / "file", 7) == b"content"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(NotAPlainFileError, match="is larger than 6 bytes"):
        read_plain_file(tmp_path / "file", 6)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(NotAPlainFileError, match="is a symbolic link"):
        read_plain_file(tmp_path / "link", 100)


def test_a_link_exchanged_after_the_look_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    monkeypatch.setattr("cascade_rt.common.plain_file._check_plain", lambda _: None)
    with pytest.raises(OSError, match="Too many levels"):
        read_plain_file(tmp_path / "link", 100)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAPlainFileError, match="not a regular file"):
        read_plain_file(tmp_path / "pipe", 100)


@pytest.mark.parametrize("path", ["/dev/zero", "."])
def test_devices_and_folders_are_not_read(path: str) -> None:
    with pytest.raises(NotAPlainFileError, match="not a regular file"):
        read_plain_file(Path(path), 100)


def test_refusing_leaves_no_file_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(NotAPlainFileError):
            read_plain_file(tmp_path / "pipe", 100)
    assert len(os.listdir("/proc/self/fd")) == before
