"""Damaged journals are refused with a sentence, or nothing that they say is believed too far."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade_rt.errors import OutputError
from cascade_rt.run.cohort.journal import Entry, Journal, journal_path
from tests.cohort_runs import masks, run, save_scans


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of three scans that is done; read only."""
    folder = tmp_path_factory.mktemp("finished")
    run(save_scans(folder / "scans", 3), folder / "out")
    return folder


@pytest.fixture
def cohort(finished: Path, tmp_path: Path) -> Path:
    """A copy of it; scans are not written to."""
    (tmp_path / "out").mkdir()
    for path in (finished / "out").iterdir():
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_journal_is_refused_or_the_masks_are_correct(finished: Path, cohort: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = journal_path(cohort / "out")
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 3, 30])):
        place = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                content[place] ^= 1 << chance.randrange(8)
            case 1:
                del content[place : place + chance.randrange(1, 40)]
            case 2:
                content[place:place] = chance.randbytes(chance.randrange(1, 40))
            case _:
                content[place : place + 20] = bytes(20)
    path.write_bytes(content)
    # Refused as a whole; or files of which the journal knows nothing any more are not replaced.
    codes = {"E_JOURNAL", "E_EXISTS", "E_CHANGED"}
    try:
        summary = run(finished / "scans", cohort / "out", resume=True)
        assert {error.code for error in summary.failures.values()} <= codes
    except OutputError as refusal:
        assert refusal.code in codes  # noqa: PT017  to be refused is one of two right ends
    assert masks(cohort / "out") == masks(finished / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": 5},
        {"outputs": ["case00_seg.nii.gz"]},
        {"outputs": {"case00_seg.nii.gz": 5}},
        {"attempt": "1"},
        {"attempt": True},
        {"input_bytes": 1.5},
        {"input_sha256": []},
        {"message": {}},
        {"time": 0},
        {"case": None},
        {"status": "finished"},
        {"another": 1},
    ],
)
def test_a_line_of_another_shape_is_refused_by_its_number(cohort: Path, changes: dict[str, object]) -> None:
    path = journal_path(cohort / "out")
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([json.dumps({**json.loads(first), **changes}) + "\n", *others]))
    with pytest.raises(OutputError, match=r"line 1 .*move the journal away") as caught:
        Journal(cohort / "out")
    assert caught.value.code == "E_JOURNAL"


@pytest.mark.parametrize("name", ["journal.jsonl", "journal.0-of-2.jsonl"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "folder", "device"]
)
def test_a_journal_that_is_not_a_file_is_refused_without_blocking(
    finished: Path, tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / name)
    with pytest.raises(OutputError, match=r"journal"):
        run(finished / "scans", tmp_path / "out", resume=True)


@pytest.mark.parametrize("stamps", [[5, 6], [1, 2, 3, 4], {"a": [1, 2]}, {"a": None}, 7])
def test_stamps_of_another_shape_are_refused(tmp_path: Path, stamps: object) -> None:
    entry = {"case": "a", "status": "done", "time": "2026", "output_stamps": stamps}
    with pytest.raises(ValueError, match="invalid"):
        Entry.from_line(json.dumps(entry).encode())


@pytest.mark.parametrize("stamp", [0, "", [], [1, 2], {}, False])
def test_a_stamp_of_a_scan_of_another_shape_is_refused(stamp: object) -> None:
    entry = {"case": "a", "status": "done", "time": "2026", "input_stamp": stamp}
    with pytest.raises(ValueError, match="invalid"):
        Entry.from_line(json.dumps(entry).encode())
