"""The journal of a cohort: one line of JSON for every event of a case.

    OUT/journal.jsonl               for a run over all cases
    OUT/journal.<i>-of-<n>.jsonl    for shard i of n

A journal is locked while a run writes to it. Shards of the same division can be computed concurrently. Two runs that
divide the cases differently, or not at all, cannot, because they would compute the same case twice.

Each line is appended in one call and flushed to disk before work continues. A killed process or a power failure leaves
at most one truncated last line, which is ignored and removed when the journal is next written to. The state of a case
is given by its newest line in any of the journals. A journal contains no absolute paths and nothing from the header of
a scan.
"""

import contextlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Self, get_args

from cascade_rt.common.atomic import sync_folder
from cascade_rt.common.file_locks import try_lock
from cascade_rt.common.outputs import write_error
from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file
from cascade_rt.errors import OutputError
from cascade_rt.run.cohort.cases import Shard

Status = Literal["started", "done", "failed", "interrupted"]
_PATTERN = "journal*.jsonl"
_WRITE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND
for _flag in ("O_BINARY", "O_NONBLOCK"):
    _WRITE_FLAGS |= getattr(os, _flag, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal."""

    case: str
    status: Status
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
    settings: Mapping[str, Any] | None = None
    """Bundle, version and options that the results depend on."""
    input_sha256: str | None = None
    input_bytes: int | None = None
    input_stamp: Sequence[int] | None = None
    """Size, times and inode of the scan (see `stamp`); None if it was replaced while it was read."""
    outputs: Mapping[str, str] | None = None
    """If the case is done: the SHA-256 of each result, keyed by its path relative to the output folder."""
    output_stamps: Mapping[str, Sequence[int]] | None = None
    """If the case is done: size, times and inode of each result, keyed in the same way."""
    found: str | None = None
    """If the case is done: the `status` of its report."""
    code: str | None = None
    """If the case failed: the error code."""
    message: str | None = None
    """If the case failed: the error message."""
    attempt: int = 1

    def to_line(self) -> bytes:
        """Serialize to one JSON line; undecodable file names are preserved (surrogateescape)."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Parse one line. Raises ValueError if it is not a valid entry."""
        values = json.loads(line)
        known = set(cls.__dataclass_fields__)
        if not isinstance(values, dict) or not isinstance(values.get("case"), str):
            raise ValueError("has no case name")
        if values.get("status") not in get_args(Status) or not values.keys() <= known:
            raise ValueError("has an unknown status or key")
        entry = cls(**values)
        entry._check()
        return entry

    def _check(self) -> None:
        texts = (self.time, self.input_sha256, self.found, self.code, self.message)
        hashes = self.outputs.values() if isinstance(self.outputs, dict) else () if self.outputs is None else (0,)
        if not all(text is None or isinstance(text, str) for text in (*texts, *hashes)):
            raise ValueError("has an invalid text")
        stamps = {} if self.output_stamps is None else self.output_stamps
        if not isinstance(stamps, dict) or not all(map(_is_stamp, stamps.values())):
            raise ValueError("has an invalid size or time")
        if not (self.input_stamp is None or _is_stamp(self.input_stamp)):
            raise ValueError("has an invalid size or time")
        if type(self.time) is not str or type(self.attempt) is not int or type(self.input_bytes) not in (int, NoneType):
            raise ValueError("has an invalid number")


def _is_stamp(value: object) -> bool:
    return isinstance(value, list) and [type(each) for each in value] == [int] * 4


class Journal:
    """A journal opened for writing, by one process at a time.

    Raises:
        OutputError: The journal cannot be written, another run is writing to the folder (`E_LOCKED`), or the journal is
            damaged or was replaced or changed by someone else during the run (`E_JOURNAL`).
    """

    is_locked: bool
    """Whether the lock is held, keeping other runs out; Windows and some network file systems have no locks."""

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self.path = journal_path(folder, shard)
        self.is_locked = False
        try:
            self._descriptor, self._is_new = _open_or_make(self.path)
            sync_folder(folder)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._lock = threading.Lock()
        # Expected file size in bytes: exactly `_size`, or up to `_longest` if a signal interrupted writing a line.
        self._size = self._longest = 0
        try:
            self.is_locked = _lock_file(self._descriptor, self.path)
            _refuse_other_runs(folder, shard)
            _, intact = _read(self.path)
            if intact < os.fstat(self._descriptor).st_size:
                os.ftruncate(self._descriptor, intact)
            self._size = self._longest = intact
        except OutputError:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        """Close the file, and remove it if this run created it and wrote nothing to it."""
        # Only while holding the lock: otherwise the file may belong to another run by now.
        if self._is_new and self.is_locked and os.fstat(self._descriptor).st_size == 0:
            with contextlib.suppress(OSError, OutputError):
                self.check()
                self.path.unlink()
        os.close(self._descriptor)

    def append(self, entry: Entry) -> None:
        """Append an entry and flush it to disk.

        Raises:
            OutputError: The entry cannot be written. The journal is then unchanged.
        """
        line = entry.to_line()
        with self._lock:
            self.check()
            self._settle()
            self._longest = self._size + len(line)
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError as error:
                os.ftruncate(self._descriptor, self._size)
                self._longest = self._size
                raise write_error(self.path, error) from error
            self._size = self._longest

    def _settle(self) -> None:
        """Settle a line whose writing was interrupted by a signal: keep it if it is complete, otherwise truncate it."""
        if os.fstat(self._descriptor).st_size == self._longest:
            self._size = self._longest
        else:
            os.ftruncate(self._descriptor, self._size)

    def check(self) -> None:
        """Raise OutputError if the journal on disk is not what this run wrote: a later run would rely on it."""
        status = os.fstat(self._descriptor)
        try:
            is_there = os.path.samestat(os.stat(self.path), status)
        except OSError:
            is_there = False
        if is_there and self._size <= status.st_size <= self._longest:
            return
        what = "truncated or written to by others" if is_there else "removed or replaced"
        sentence = f"was {what} during the run; leave the folder alone, and continue with `resume`"
        raise OutputError(f"{self.path}: {sentence}", code="E_JOURNAL")


def journal_path(folder: Path, shard: Shard | None = None) -> Path:
    """Return the path of the journal in an output folder."""
    return folder / name_of_part("journal", ".jsonl", shard)


def name_of_part(stem: str, suffix: str, shard: Shard | None) -> str:
    """Return the name of a file that each shard has for itself, such as `journal.0-of-2.jsonl`."""
    return f"{stem}{suffix}" if shard is None else f"{stem}.{shard.index}-of-{shard.count}{suffix}"


def find_journals(folder: Path) -> list[Path]:
    """Return the journals of an output folder: that of a run over all cases, and those of shards."""
    return sorted(folder.glob(_PATTERN))


def read_journal(path: Path) -> list[Entry]:
    """Read all entries of a journal, ignoring a truncated last line. Raises like `Journal`."""
    return _read(path)[0]


def newest_entries(folder: Path) -> dict[str, Entry]:
    """Return the newest entry of each case over all journals of a folder.

    A case is in several journals if earlier runs divided the cohort differently.
    """
    found: dict[str, Entry] = {}
    for path in find_journals(folder):
        for case, entry in {entry.case: entry for entry in read_journal(path)}.items():
            if case not in found or _age(entry) > _age(found[case]):
                found[case] = entry
    return found


def _age(entry: Entry) -> tuple[str, bool]:
    # On equal times "done" wins, because it never allows removing a file that may be someone's work.
    return entry.time, entry.status == "done"


def _open_or_make(path: Path) -> tuple[int, bool]:
    """Open a journal for writing. Return its descriptor and whether the file was created."""
    try:
        return os.open(path, _WRITE_FLAGS | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, _WRITE_FLAGS, 0o666), False


def _read(path: Path) -> tuple[list[Entry], int]:
    """Return the intact entries and the number of bytes they take in the file."""
    try:
        with open_plain_file(path, follow_links=True) as file:
            content = file.read()
    except NotAPlainFileError as error:
        raise OutputError(
            f"{path}: {error}, but the journal of the run belongs there; remove it", code="E_JOURNAL"
        ) from error
    except OSError as error:
        raise write_error(path, error) from error
    entries: list[Entry] = []
    intact = 0
    for number, line in enumerate(lines := content.splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("is truncated")
            entries.append(Entry.from_line(line))
        except (ValueError, TypeError, RecursionError) as error:
            if number == len(lines):
                break
            raise OutputError(
                f"{path}: line {number} {error}; move the journal away and start again with `overwrite`",
                code="E_JOURNAL",
            ) from error
        intact += len(line)
    return entries, intact


def _lock_file(descriptor: int, path: Path) -> bool:
    """Lock the file until the descriptor is closed. Return False if locks are not supported here."""
    try:
        return try_lock(descriptor)
    except BlockingIOError as error:
        raise _locked(path) from error


def _refuse_other_runs(folder: Path, shard: Shard | None) -> None:
    """Raise OutputError if a run that divides the cases differently is writing to this folder."""
    parts = f"journal.*-of-{shard.count}.jsonl" if shard is not None else journal_path(folder).name
    for path in sorted(set(find_journals(folder)) - set(folder.glob(parts))):
        if _is_being_written(path):
            raise _locked(path)


def _is_being_written(path: Path) -> bool:
    try:
        with open_plain_file(path, follow_links=True) as file:
            # A shared lock, so that several runs can check at the same time.
            try_lock(file.fileno(), shared=True)
    except BlockingIOError:
        return True
    except (OSError, NotAPlainFileError):
        return False
    return False


def _locked(path: Path) -> OutputError:
    sentence = "another run is writing to this folder; wait for it, or choose another `output`"
    return OutputError(f"{path}: {sentence}", code="E_LOCKED")
