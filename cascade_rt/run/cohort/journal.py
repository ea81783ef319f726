"""The journal of a cohort: a line of JSON for everything that happens to a case.

    OUT/journal.jsonl               of a run over all cases
    OUT/journal.<i>-of-<n>.jsonl    of the part i of n

A journal is locked while it is written. Parts of one division can be computed at the same time; two runs that divide
the cases otherwise, or not at all, cannot, for they would compute the same case twice.

Each line is appended in one call and flushed to the disk before the work goes on. What a killed process or a power
failure leaves is at most a last line that is cut off, which does not count and is removed when the journal is next
written to. The newest line of a case, in whichever journal, says how it stands. Nothing in a journal is an absolute
path, and nothing is from the header of a scan.
"""

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Self, get_args

from cascade_rt.common.atomic import sync_folder
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
    """A line of a journal."""

    case: str
    status: Status
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
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
        entry = cls(**values)
        entry._check()
        return entry

    def _check(self) -> None:
        texts = (self.time, self.input_sha256, self.found, self.code, self.message)
        hashes = self.outputs.values() if isinstance(self.outputs, dict) else () if self.outputs is None else (0,)
        if not all(text is None or isinstance(text, str) for text in (*texts, *hashes)):
            raise ValueError("has a text that is none")
        if type(self.attempt) is not int or type(self.input_bytes) not in (int, NoneType):
            raise ValueError("has a number that is none")


class Journal:
    """A journal that is being written; only one process can.

    Raises:
        OutputError: It cannot be written, another run is writing to the folder (`E_LOCKED`), it is damaged, or it was
            exchanged or changed while it was written (`E_JOURNAL`).
    """

    is_locked: bool
    """Whether another run would be kept out; some network file systems, and Windows, have no locks."""

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self.path = journal_path(folder, shard)
        self.is_locked = False
        try:
            self._descriptor, self._is_new = _open_or_make(self.path)
            sync_folder(folder)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._lock = threading.Lock()
        # It is of the first size, and of any up to the second where a signal came while a line was written.
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
        """Close the file; one that this run has made and written nothing to is removed, for it says nothing."""
        # Only under the lock: else it may be that of another run by now.
        if self._is_new and self.is_locked and os.fstat(self._descriptor).st_size == 0:
            with contextlib.suppress(OSError, OutputError):
                self.check()
                self.path.unlink()
        os.close(self._descriptor)

    def append(self, entry: Entry) -> None:
        """Add an entry; when this returns it is on the disk.

        Raises:
            OutputError: It is not; then the journal is as it was.
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
        """Of a line during which a signal came: it counts where all of it was written, and else goes."""
        if os.fstat(self._descriptor).st_size == self._longest:
            self._size = self._longest
        else:
            os.ftruncate(self._descriptor, self._size)

    def check(self) -> None:
        """Raise OutputError where the file of that name is not what this run wrote: it would be believed."""
        status = os.fstat(self._descriptor)
        try:
            is_there = os.path.samestat(os.stat(self.path), status)
        except OSError:
            is_there = False
        if is_there and self._size <= status.st_size <= self._longest:
            return
        what = "cut or written to by others" if is_there else "removed or exchanged"
        sentence = f"was {what} while it was written; leave the folder alone, and start again with `resume`"
        raise OutputError(f"{self.path}: {sentence}", code="E_JOURNAL")


def journal_path(folder: Path, shard: Shard | None = None) -> Path:
    """Where the journal of a folder of results is."""
    return folder / ("journal.jsonl" if shard is None else f"journal.{shard.index}-of-{shard.count}.jsonl")


def read_journal(path: Path) -> list[Entry]:
    """All entries of a journal, but for a last line that is cut off; raises like `Journal`."""
    return _read(path)[0]


def newest_entries(folder: Path) -> dict[str, Entry]:
    """How each case stands: several journals know it where the cohort was divided otherwise before."""
    found: dict[str, Entry] = {}
    for path in sorted(folder.glob(_PATTERN)):
        for case, entry in {entry.case: entry for entry in read_journal(path)}.items():
            if case not in found or _age(entry) > _age(found[case]):
                found[case] = entry
    return found


def _age(entry: Entry) -> tuple[str, bool]:
    # Of two of one time, the one that lets no file be removed that may be somebody's work.
    return entry.time, entry.status == "done"


def _open_or_make(path: Path) -> tuple[int, bool]:
    """Open a journal for writing; whether it is a new one."""
    try:
        return os.open(path, _WRITE_FLAGS | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, _WRITE_FLAGS, 0o666), False


def _read(path: Path) -> tuple[list[Entry], int]:
    """The entries, and how many bytes of the file they are."""
    try:
        with open_plain_file(path, follow_links=True) as file:
            content = file.read()
    except NotAPlainFileError as error:
        sentence = "where the journal of a run is to be; remove it"
        raise OutputError(f"{path}: {error}, {sentence}", code="E_JOURNAL") from error
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
                f"{path}: line {number} {error}; move the journal away and start again with `overwrite`",
                code="E_JOURNAL",
            ) from error
        intact += len(line)
    return entries, intact


def _lock_file(descriptor: int, path: Path) -> bool:
    """Keep other runs out until the descriptor is closed; whether that is possible here."""
    try:
        import fcntl
    except ImportError:
        # Windows.
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _locked(path) from error
    except OSError:
        # File systems without locks, as some network ones are.
        return False
    return True


def _refuse_other_runs(folder: Path, shard: Shard | None) -> None:
    """Raise OutputError where a run is writing to this folder that divides the cases in another way."""
    parts = f"journal.*-of-{shard.count}.jsonl" if shard is not None else journal_path(folder).name
    for path in sorted(set(folder.glob(_PATTERN)) - set(folder.glob(parts))):
        if _is_being_written(path):
            raise _locked(path)


def _is_being_written(path: Path) -> bool:
    try:
        import fcntl

        with open_plain_file(path, follow_links=True) as file:
            # Others may look at the same time: they do not keep one another out.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError, NotAPlainFileError):
        return False
    return False


def _locked(path: Path) -> OutputError:
    sentence = "another run is writing to this folder; wait for it, or choose another `output`"
    return OutputError(f"{path}: {sentence}", code="E_LOCKED")
