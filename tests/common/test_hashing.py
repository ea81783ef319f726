"""A hash is of the bytes that were read."""

import hashlib
import io
import os
from pathlib import Path

import pytest

from cascade_rt.common.hashing import FileRecord, HashedFile, record_file
from cascade_rt.common.plain_file import NotAPlainFileError

CONTENT = bytes(range(256)) * 3000
RECORD = FileRecord(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def test_a_file_is_recorded_by_the_hash_and_the_size_of_its_content(path: Path) -> None:
    assert record_file(path) == RECORD


@pytest.mark.parametrize("count", [0, 1, 10_000, len(CONTENT)])
def test_what_a_reader_has_left_is_of_the_record_too(path: Path, count: int) -> None:
    with HashedFile(path) as file:
        reader = io.BufferedReader(file)
        assert reader.read(count) == CONTENT[:count]
        assert file.record() == RECORD


def test_a_file_replaced_while_it_is_read_has_the_hash_of_what_was_read(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"another")
    with HashedFile(path) as file:
        file.read(10)
        os.replace(tmp_path / "other", path)
        assert file.record() == RECORD


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAPlainFileError, match="a pipe or a device"):
        record_file(tmp_path / "pipe")
