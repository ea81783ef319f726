"""The journal of a cohort: a line of JSON for everything that happens to a case.

    OUT/journal.jsonl               of a run over all cases
    OUT/journal.<i>-of-<n>.jsonl    of the part i of n

Each line is appended in one call and flushed to the disk before the work goes on. What a killed process or a power
failure leaves is at most a last line that is cut off, which does not count and is removed when the journal is next
written to. The last line of a case says how it stands. Nothing in a journal is an absolute path, and nothing is from
the header of a scan.
"""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

from cascade_rt.atomic import sync_folder, write_error
from cascade_rt.cohort.cases import Shard
from cascade_rt.errors import OutputError

Status = Literal["started", "done", "failed", "interrupted"]
_PATTERN = "journal*.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a journal."""

    case: str
    status: Status
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    settings: Mapping[str, Any] | None = None
    """Bundle, version and options that the results depend on."""
    input_sha256: str | None = None
    input_bytes: int | None = None
    outputs: Mapping[str, str | None] | None = None
    """Of a case that is done: the SHA-256 of each result, by its path in the folder of results."""
    found: str | None = None
    """Of a case that is done: what was found, in the one word of its report."""
    code: str | None = None
    """Of a case that failed: the code of the error."""
    message: str | None = None
    """Of a case that failed: the error."""
    attempt: int = 1

    def to_line(self) -> bytes:
        """The entry as one line; names that are no text stay what they are."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read an entry; ValueError where the line is none."""
        values = json.loads(line)
        known = set(cls.__dataclass_fields__)
        if not isinstance(values, dict) or not isinstance(values.get("case"), str):
            raise ValueError("names no case")
        if values.get("status") not in get_args(Status) or not values.keys() <= known:
            raise ValueError("is of an unknown kind")
        return cls(**values)


class Journal:
    """A journal that is being written; only one process can.

    Raises:
        OutputError: It cannot be written, another process is writing it (`E_LOCKED`), or it is damaged (`E_JOURNAL`).
    """

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self.path = journal_path(folder, shard)
        try:
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666
            )
            sync_folder(folder)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._lock = threading.Lock()
        try:
            _lock_file(self._descriptor, self.path)
            _, intact = _read(self.path)
            if intact < os.fstat(self._descriptor).st_size:
                os.ftruncate(self._descriptor, intact)
        except OutputError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def append(self, entry: Entry) -> None:
        """Add an entry; when this returns it is on the disk.

        Raises:
            OutputError: It is not; then the journal is as it was.
        """
        line = entry.to_line()
        with self._lock:
            end = os.fstat(self._descriptor).st_size
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError as error:
                os.ftruncate(self._descriptor, end)
                raise write_error(self.path, error) from error


def journal_path(folder: Path, shard: Shard | None = None) -> Path:
    """Where the journal of a folder of results is."""
    return folder / ("journal.jsonl" if shard is None else f"journal.{shard.index}-of-{shard.count}.jsonl")


def read_journal(path: Path) -> list[Entry]:
    """All entries of a journal, but for a last line that is cut off; raises like `Journal`."""
    return _read(path)[0]


def last_entries(folder: Path) -> dict[str, list[Entry]]:
    """How each case stands in each journal of a folder that knows it: parts of a cohort may have been cut otherwise."""
    found: dict[str, list[Entry]] = {}
    for path in sorted(folder.glob(_PATTERN)):
        for case, entry in {entry.case: entry for entry in read_journal(path)}.items():
            found.setdefault(case, []).append(entry)
    return found


def _read(path: Path) -> tuple[list[Entry], int]:
    """The entries, and how many bytes of the file they are."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise write_error(path, error) from error
    entries: list[Entry] = []
    intact = 0
    for number, line in enumerate(lines := content.splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("is cut off")
            entries.append(Entry.from_line(line))
        except (ValueError, TypeError, RecursionError) as error:
            if number == len(lines):
                break
            raise OutputError(
                f"{path}: line {number} {error}; move the journal away and start again with --overwrite",
                code="E_JOURNAL",
            ) from error
        intact += len(line)
    return entries, intact


def _lock_file(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        # Windows: nothing keeps two runs apart there.
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"{path}: another run is writing to this folder; wait for it, or name another folder with -o",
            code="E_LOCKED",
        ) from error
    except OSError:
        # File systems without locks, as some network ones are.
        return
