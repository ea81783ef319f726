"""The journal survives whatever kills its writer."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.errors import OutputError
from cascade_rt.run.cohort.cases import Shard
from cascade_rt.run.cohort.journal import Entry, Journal, journal_path, newest_entries, read_journal


def written(folder: Path, *entries: Entry) -> Path:
    with Journal(folder) as journal:
        for entry in entries:
            journal.append(entry)
    return journal.path


STARTED, DONE = Entry("a", "started"), Entry("a", "done", outputs={"a_seg.nii.gz": "00"}, settings={"bundle": "b"})


def test_entries_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_journal(written(tmp_path, STARTED, DONE)) == [STARTED, DONE]


@given(st.text())
def test_any_name_is_one_line_and_comes_back(name: str) -> None:
    line = Entry(name, "started").to_line()
    assert line.count(b"\n") == 1
    assert Entry.from_line(line).case == name


def test_an_undecodable_name_survives_a_round_trip(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    assert read_journal(written(tmp_path, Entry(name, "started")))[0].case == name


def test_a_truncated_last_line_is_ignored_and_removed(tmp_path: Path) -> None:
    path = written(tmp_path, STARTED, DONE)
    whole = path.read_bytes()
    first = len(STARTED.to_line())
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert read_journal(path) == [STARTED]
        assert read_journal(written(tmp_path, DONE)) == [STARTED, DONE]


def test_a_last_line_of_zeros_is_ignored(tmp_path: Path) -> None:
    path = written(tmp_path, STARTED)
    path.write_bytes(path.read_bytes() + bytes(100))
    assert read_journal(path) == [STARTED]


def test_damage_before_the_last_line_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path, STARTED, DONE)
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(OutputError, match="line 1 has no case name; move the journal away") as caught:
        written(tmp_path)
    assert caught.value.code == "E_JOURNAL"


def test_the_last_entry_of_a_case_counts(tmp_path: Path) -> None:
    written(tmp_path, STARTED, DONE, Entry("a", "failed", code="E_INPUT"))
    (entry,) = newest_entries(tmp_path).values()
    assert entry.code == "E_INPUT"


def test_the_journals_of_all_parts_are_read(tmp_path: Path) -> None:
    written(tmp_path, STARTED)
    with Journal(tmp_path, Shard(1, 4)) as journal:
        journal.append(Entry("b", "started"))
    assert journal.path.name == "journal.1-of-4.jsonl"
    assert newest_entries(tmp_path).keys() == {"a", "b"}


@pytest.mark.parametrize("newest", [None, Shard(0, 4), Shard(1, 4)])
def test_the_newest_entry_of_a_case_counts_whichever_journal_it_is_in(tmp_path: Path, newest: Shard | None) -> None:
    for shard in (None, Shard(0, 4), Shard(1, 4)):
        with Journal(tmp_path, shard) as journal:
            journal.append(Entry("a", "done" if shard == newest else "started", time=_time(shard == newest)))
    assert newest_entries(tmp_path)["a"].status == "done"


def test_of_entries_of_one_time_the_one_that_keeps_the_files_counts(tmp_path: Path) -> None:
    for shard, status in ((None, "started"), (Shard(0, 2), "done"), (Shard(1, 2), "started")):
        with Journal(tmp_path, shard) as journal:
            journal.append(Entry("a", status, time=_time(late=False)))  # type: ignore[arg-type]
    assert newest_entries(tmp_path)["a"].status == "done"


def _time(late: bool) -> str:
    # Journals of earlier versions have whole seconds.
    return "2026-01-01T12:00:00.000001+00:00" if late else "2026-01-01T12:00:00+00:00"


@pytest.mark.parametrize("content", [b"", b'{"case":"a","status":"failed"}\n'])
def test_a_journal_written_to_by_others_is_not_continued(tmp_path: Path, content: bytes) -> None:
    with Journal(tmp_path) as journal:
        journal.append(STARTED)
        journal.path.write_bytes(content)
        with pytest.raises(OutputError, match="was truncated or written to by others") as caught:
            journal.append(DONE)
    assert caught.value.code == "E_JOURNAL"


def test_two_runs_cannot_write_to_one_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Journal(tmp_path), pytest.raises(OutputError, match="another run is writing") as caught:
        Journal(tmp_path)
    assert caught.value.code == "E_LOCKED"


def test_each_entry_is_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with Journal(tmp_path) as journal:
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
        journal.append(STARTED)
    assert synced == [len(STARTED.to_line())]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_an_entry_that_cannot_be_written_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal(tmp_path) as journal:
        journal.append(STARTED)
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(OutputError) as caught:
            journal.append(DONE)
    assert caught.value.code == "E_NOSPACE"
    assert read_journal(journal_path(tmp_path)) == [STARTED]


@pytest.mark.parametrize(
    ("first", "second", "both_run"),
    [
        (None, Shard(0, 1), False),
        (Shard(0, 2), None, False),
        (Shard(0, 2), Shard(0, 3), False),
        (Shard(0, 2), Shard(1, 2), True),
    ],
)
def test_runs_with_different_shards_are_kept_apart(
    tmp_path: Path, first: Shard | None, second: Shard | None, both_run: bool
) -> None:
    pytest.importorskip("fcntl")
    with Journal(tmp_path, first):
        if both_run:
            Journal(tmp_path, second).__exit__()
            return
        with pytest.raises(OutputError, match="another run is writing") as caught:
            Journal(tmp_path, second)
        assert caught.value.code == "E_LOCKED"
    Journal(tmp_path, second).__exit__()


def test_a_run_that_is_refused_leaves_no_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Journal(tmp_path, Shard(0, 2)) as journal:
        with pytest.raises(OutputError):
            Journal(tmp_path)
        assert list(tmp_path.iterdir()) == [journal.path]


def test_a_run_that_writes_nothing_down_leaves_no_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    Journal(tmp_path).__exit__()
    assert not list(tmp_path.iterdir())


def test_a_journal_that_was_there_stays_although_nothing_is_added(tmp_path: Path) -> None:
    journal_path(tmp_path).touch()
    Journal(tmp_path).__exit__()
    assert journal_path(tmp_path).exists()


def test_a_file_system_without_locks_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with Journal(tmp_path) as journal:
        assert journal.is_locked
    monkeypatch.setattr(fcntl, "flock", refuse)
    with Journal(tmp_path) as journal:
        assert not journal.is_locked


def remove(path: Path) -> None:
    path.unlink()


def exchange(path: Path) -> None:
    path.with_name("other").write_bytes(path.read_bytes())
    path.with_name("other").replace(path)


@pytest.mark.parametrize("change", [remove, exchange])
def test_a_journal_removed_or_replaced_during_a_run_is_detected(tmp_path: Path, change: Callable[[Path], None]) -> None:
    with Journal(tmp_path) as journal:
        journal.append(STARTED)
        change(journal.path)
        with pytest.raises(OutputError, match="was removed or replaced") as caught:
            journal.append(DONE)
    assert caught.value.code == "E_JOURNAL"


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_line_interrupted_by_a_signal_does_not_block_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write = os.write

    def interrupt(descriptor: int, *content: bytes) -> int:
        if content:
            write(descriptor, content[0][:10])
        raise KeyboardInterrupt

    with Journal(tmp_path) as journal:
        journal.append(STARTED)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, interrupt)
            with pytest.raises(KeyboardInterrupt):
                journal.append(DONE)
        journal.append(Entry("b", "interrupted"))
    entries = [(entry.case, entry.status) for entry in read_journal(journal.path)]
    assert entries == [("a", "started"), *([("a", "done")] if call == "fsync" else []), ("b", "interrupted")]
