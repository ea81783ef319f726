"""Interpret the journal: which cases are finished, which outputs are ours, and which were interrupted."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from cascade_rt.common.atomic import remove_leftovers
from cascade_rt.common.hashing import FileRecord, record_file
from cascade_rt.common.outputs import write_error
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.common.shown_paths import hide_folders
from cascade_rt.errors import CascadeError, OutputError, OutputExistsError, WorkerError
from cascade_rt.run.cohort.cases import Case
from cascade_rt.run.cohort.journal import Entry, Journal, newest_entries
from cascade_rt.run.cohort.task_result import TaskResult


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one case."""

    case: Case
    status: Literal["done", "skipped", "failed"]
    report: Mapping[str, Any] | None = None
    """Set if the case is done."""
    error: CascadeError | None = None
    """Set if the case failed."""
    is_transient: bool = False
    attempt: int = 1


class ResumeState:
    """Write the journal of a run, and use the journals of earlier runs to decide which cases to skip.

    A case is skipped if its newest entry says "done" and the bytes of the scan, the settings and the bytes of every
    result are unchanged. Existing files are replaced without `overwrite` only if that entry shows that they are ours
    and unchanged, or that they were being written when a run was killed. A failed case leaves no results, because they
    would be mistaken for results of this run.
    """

    def __init__(
        self, folder: Path, journal: Journal, settings: Mapping[str, Any], *, resume: bool, overwrite: bool
    ) -> None:
        """Begin a run.

        Args:
            folder: The output folder.
            journal: The journal of this run.
            settings: Bundle, version and options that the results depend on, as plain JSON values.
            resume: Whether to take the work of earlier runs into account.
            overwrite: Whether results that are not ours may be replaced.
        """
        self.overwrite = overwrite
        self._folder = folder
        self._journal = journal
        self._settings = dict(settings)
        self._resume = resume
        self._known = newest_entries(folder) if resume else {}
        self._open: dict[str, tuple[Case, bool]] = {}
        self._attempts: dict[str, int] = {}
        self._written: dict[Path, _Written] = {}

    def begin(self, case: Case) -> Outcome | None:
        """Decide whether a case must be computed and, if so, record that it has started.

        Returns:
            None if the case must be computed, otherwise its outcome.

        Raises:
            OutputError: The journal cannot be written.
        """
        if case.refusal is not None:
            return self._refuse(case, case.refusal)
        entry = self._known.get(case.name)
        if entry is not None and self._is_done(entry, case):
            return Outcome(case, "skipped")
        existing = [path for path in case.job.results if os.path.lexists(path)]
        was_cut_off = entry is not None and entry.status in {"started", "interrupted"}
        is_ours = entry is not None and (was_cut_off or self._wrote(entry, existing))
        if existing and not self.overwrite and not is_ours:
            return Outcome(case, "failed", error=self._not_ours(existing[0], entry))
        try:
            if existing and not self.overwrite:
                # Removed before the new ones exist: if the scan has become unreadable, the old mask is of another scan.
                _remove(existing)
                existing = []
            if was_cut_off:
                _clear_leftovers(case)
        except OutputError as error:
            # Not recorded: the entry that shows who owns the files must remain the newest.
            return Outcome(case, "failed", error=error)
        self._attempts[case.name] = self._attempts.get(case.name, 0) + 1
        self._open[case.name] = (case, not existing)
        self._journal.append(Entry(case.name, "started", attempt=self._attempts[case.name]))
        return None

    def finish(self, case: Case, answer: TaskResult) -> Outcome:
        """Record the outcome of a started case. Raises OutputError if the journal cannot be written."""
        _, was_new = self._open[case.name]
        attempt = self._attempts[case.name]
        written = {path: _Written.look_at(path) for path in case.job.results}
        outputs = {self._relative(path): each.sha256 for path, each in written.items()}
        if answer.error is None and None in outputs.values():
            error = OutputError(f"{case.job.mask}: cannot be read back; is the disk in order?")
            answer = TaskResult(error=error, is_transient=True)
            self._clear(case, was_new)
        if answer.error is not None:
            if isinstance(answer.error, WorkerError):
                self._clear(case, was_new)
            if self.overwrite:
                _unlink(case.job.results)
            entry = self._failure(case, answer.error, attempt)
            outcome = Outcome(case, "failed", error=answer.error, is_transient=answer.is_transient, attempt=attempt)
        else:
            read = (answer.report or {}).get("input") or {}
            entry = Entry(
                case.name,
                "done",
                settings=self._settings,
                # Hashed while the scan was read: the file on disk may have been replaced since.
                input_sha256=read.get("sha256"),
                input_bytes=read.get("bytes"),
                outputs=outputs,
                found=answer.report["status"] if answer.report is not None else None,
                attempt=attempt,
            )
            outcome = Outcome(case, "done", report=answer.report, attempt=attempt)
            self._written.update(written)
        self._journal.append(entry)
        del self._open[case.name]
        return outcome

    def interrupt(self) -> None:
        """Remove the outputs of cases that have started but not finished, and record that they were interrupted."""
        for case, was_new in list(self._open.values()):
            # If this fails, the journal still says that they started, which is enough for the next run.
            with contextlib.suppress(OutputError):
                self._clear(case, was_new)
                self._journal.append(Entry(case.name, "interrupted", attempt=self._attempts[case.name]))
        self._open.clear()

    def check_results(self) -> None:
        """Check at the end of the run that its results are still in place.

        Raises:
            OutputError: A result or the journal was removed or changed by someone else during the run.
        """
        self._journal.check()
        gone = [path for path in self._written if not os.path.lexists(path)]
        if gone:
            raise OutputError(
                f"{_and_more(gone)}: written by this run and removed by somebody since; compute again with `resume`"
            )
        changed = [path for path, written in self._written.items() if written.was_changed(path)]
        if changed:
            sentence = "written by this run and changed by somebody since; if that was not meant, remove it"
            raise OutputError(f"{_and_more(changed)}: {sentence} and compute again with `resume`", code="E_CHANGED")

    def _refuse(self, case: Case, error: CascadeError) -> Outcome:
        self._journal.append(self._failure(case, error, 1))
        return Outcome(case, "failed", error=error)

    def _failure(self, case: Case, error: CascadeError, attempt: int) -> Entry:
        message = self._without_paths(str(error), case)
        return Entry(case.name, "failed", code=error.code, message=message, attempt=attempt)

    def _is_done(self, entry: Entry, case: Case) -> bool:
        if entry.status != "done" or entry.settings != self._settings or not self._wrote(entry, case.job.results):
            return False
        scan = _look_at(case.job.scan)
        return scan is not None and (scan.sha256, scan.bytes) == (entry.input_sha256, entry.input_bytes)

    def _wrote(self, entry: Entry, paths: tuple[Path, ...] | list[Path]) -> bool:
        """Return whether all files exist with the hashes recorded in an entry."""
        outputs = entry.outputs or {}
        return all(outputs.get(self._relative(path)) == _sha256(path) is not None for path in paths)

    def _not_ours(self, path: Path, entry: Entry | None) -> CascadeError:
        if entry is not None and entry.status == "done":
            return OutputExistsError(
                f"{path}: was changed since it was written; keep it elsewhere, or replace it with `overwrite`",
                code="E_CHANGED",
            )
        hint = "" if self._resume else ", go on where an earlier run ended with `resume`"
        return OutputExistsError(f"{path}: is there already; replace it with `overwrite`{hint}")

    def _clear(self, case: Case, was_new: bool) -> None:
        # Anything that cannot be removed now is removed by the next run, which finds it in the journal.
        with contextlib.suppress(OutputError):
            _clear_leftovers(case)
        if was_new:
            _unlink(case.job.results)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _without_paths(self, message: str, case: Case) -> str:
        """Replace the scan's path in a message by the case name, and make paths of results relative to the folder."""
        scan, folder = os.fspath(case.job.scan), os.fspath(self._folder)
        for path in (os.path.abspath(scan), scan):
            message = message.replace(path, case.name)
        for path in (os.path.abspath(folder), folder):
            message = message.replace(path + os.sep, "") if path != os.curdir else message
        return hide_folders(message, ())


@dataclass(frozen=True, slots=True)
class _Written:
    """The state of a result file when it was recorded in the journal."""

    status: tuple[int, ...]
    """Device, inode, size in bytes and modification time in ns; empty if the file could not be examined."""
    sha256: str | None

    @classmethod
    def look_at(cls, path: Path) -> Self:
        return cls(_status(path), _sha256(path))

    def was_changed(self, path: Path) -> bool:
        # Some network file systems change a file's inode number later, so only its bytes are conclusive.
        return _status(path) != self.status and _sha256(path) != self.sha256


def _status(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _and_more(paths: list[Path]) -> str:
    return f"{paths[0]} and {len(paths) - 1} more results" if len(paths) > 1 else f"{paths[0]}"


def _look_at(path: Path) -> FileRecord | None:
    """Return the hash and size of a file, or None if it is unreadable, which is reported when the file is used."""
    try:
        return record_file(path)
    except (OSError, NotAPlainFileError):
        return None


def _sha256(path: Path) -> str | None:
    found = _look_at(path)
    return None if found is None else found.sha256


def _remove(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink()
        except OSError as error:
            raise write_error(path, error) from error


def _unlink(paths: tuple[Path, ...]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _clear_leftovers(case: Case) -> None:
    for path in case.job.results:
        remove_leftovers(path)
