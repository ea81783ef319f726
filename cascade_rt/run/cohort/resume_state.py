"""Interpret the journal: which cases are finished, which outputs are ours, and which were interrupted."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade_rt.common.atomic import remove_leftovers
from cascade_rt.common.hashing import FileState, file_sha256, stamp
from cascade_rt.common.outputs import write_error
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.common.shown_paths import hide_folders
from cascade_rt.errors import (
    BackendUnavailableError,
    CascadeError,
    InputError,
    OutputError,
    OutputExistsError,
    WorkerError,
)
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.journal import Entry, Journal, newest_entries
from cascade_rt.run.cohort.outcome import Outcome
from cascade_rt.run.cohort.task_result import TaskResult
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.opening import record_scan, scan_stamp, stores_dicom


class ResumeState:
    """Write the journal of a run, and use the journals of earlier runs to decide which cases to skip.

    A case is skipped if its newest entry says "done" and the settings, the scan and every result are unchanged. Files
    of the recorded size, times and inode count as unchanged; others, and all with `verify`, are hashed. Existing
    files are replaced without `overwrite` only if their hashes show that they are ours and unchanged, or if they were
    being written when a run was killed. A failed case leaves no results, because they would be mistaken for results of
    this run.
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        settings: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        verify: bool = False,
        reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
    ) -> None:
        """Begin a run.

        Args:
            folder: The output folder.
            journal: The journal of this run.
            settings: Bundle, version and options that the results depend on, as plain JSON values.
            resume: Whether to take the work of earlier runs into account.
            overwrite: Whether results that are not ours may be replaced.
            verify: Whether to hash all files of earlier runs, rather than trust their sizes, times and inodes.
            reading: How scans are read.
        """
        self.overwrite = overwrite
        self._folder = folder
        self._journal = journal
        self._settings = dict(settings)
        self._reading = reading
        self._resume = resume
        self._verify = verify
        self._known = newest_entries(folder) if resume else {}
        self._open: dict[str, _Begun] = {}
        self._attempts: dict[str, int] = {}
        self._written: dict[Path, FileState] = {}

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
        existing = [path for path in case.results if os.path.lexists(path)]
        was_cut_off = entry is not None and entry.status in {"started", "interrupted"}
        is_ours = entry is not None and (was_cut_off or self._wrote(entry, existing, verify=True))
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
        self._open[case.name] = _Begun(case, not existing, scan_stamp(case.scan))
        self._journal.append(Entry(case.name, "started", attempt=self._attempts[case.name]))
        return None

    def finish(self, case: Case, result: TaskResult) -> Outcome:
        """Record the outcome of a started case. Raises OutputError if the journal cannot be written."""
        begun, attempt = self._open[case.name], self._attempts[case.name]
        if result.error is not None:
            if isinstance(result.error, WorkerError):
                self._clear(begun)
            if self.overwrite:
                _unlink(case.results)
            entry = self._failure(case, result.error, attempt)
        else:
            entry = self._success(begun, result, attempt)
            self._written.update(result.files)
        self._journal.append(entry)
        del self._open[case.name]
        return Outcome.of(case, result, attempt)

    def interrupt(self) -> None:
        """Remove the outputs of cases that have started but not finished, and record that they were interrupted."""
        for begun in list(self._open.values()):
            # If this fails, the journal still says that they started, which is enough for the next run.
            with contextlib.suppress(OutputError):
                self._clear(begun)
                name = begun.case.name
                self._journal.append(Entry(name, "interrupted", attempt=self._attempts[name]))
        self._open.clear()

    def check_results(self) -> None:
        """Check at the end of the run that its results are still in place.

        Raises:
            OutputError: A result or the journal was removed or changed by someone else during the run.
        """
        self._journal.check()
        gone = [path for path in self._written if not os.path.lexists(path)]
        if gone:
            raise OutputError(f"{_and_more(gone)}: written by this run, but since removed; compute again with `resume`")
        changed = [
            path for path, written in self._written.items() if not _is(path, written.record.sha256, written.stamp)
        ]
        if changed:
            sentence = "written by this run, but since changed; if that was not intended, remove it"
            raise OutputError(f"{_and_more(changed)}: {sentence} and compute again with `resume`", code="E_CHANGED")

    def _refuse(self, case: Case, error: CascadeError) -> Outcome:
        self._journal.append(self._failure(case, error, 1))
        return Outcome(case, "failed", error=error)

    def _failure(self, case: Case, error: CascadeError, attempt: int) -> Entry:
        message = self._without_paths(str(error), case)
        return Entry(case.name, "failed", code=error.code, message=message, attempt=attempt)

    def _success(self, begun: "_Begun", result: TaskResult, attempt: int) -> Entry:
        report = result.report or {}
        read = report.get("input") or {}
        # Hashed while the scan was read: the file on disk may have been replaced since, and then has another stamp.
        before, after = begun.scan_stamp, scan_stamp(begun.case.scan)
        # A folder or an archive also holds files that were not read.
        is_other_size = before is not None and before[0] != read.get("bytes") and not stores_dicom(begun.case.scan)
        was_replaced = before is None or before != after or is_other_size
        return Entry(
            begun.case.name,
            "done",
            settings=self._settings,
            input_sha256=read.get("sha256"),
            input_bytes=read.get("bytes"),
            input_stamp=None if was_replaced else before,
            outputs={self._relative(path): state.record.sha256 for path, state in result.files.items()},
            output_stamps={self._relative(path): state.stamp for path, state in result.files.items()},
            found=report.get("status"),
            attempt=attempt,
        )

    def _is_done(self, entry: Entry, case: Case) -> bool:
        return (
            entry.status == "done"
            and entry.settings == self._settings
            and self._wrote(entry, case.results, verify=self._verify)
            and self._is_scan(case, entry)
        )

    def _is_scan(self, case: Case, entry: Entry) -> bool:
        """Return whether the scan of a case is the one that was read (see `_is`)."""
        if not self._verify and entry.input_stamp is not None and scan_stamp(case.scan) == entry.input_stamp:
            return True
        try:
            return record_scan(case.scan, case.reading(self._reading)).sha256 == entry.input_sha256
        except (OSError, NotAPlainFileError, InputError, BackendUnavailableError):
            return False

    def _wrote(self, entry: Entry, paths: Sequence[Path], *, verify: bool) -> bool:
        """Return whether all files exist as they are recorded in an entry."""
        outputs, stamps = entry.outputs or {}, {} if verify else entry.output_stamps or {}
        names = [self._relative(path) for path in paths]
        return all(_is(path, outputs.get(name), stamps.get(name)) for path, name in zip(paths, names, strict=True))

    def _not_ours(self, path: Path, entry: Entry | None) -> CascadeError:
        if entry is not None and entry.status == "done":
            return OutputExistsError(
                f"{path}: has changed since it was written; move it elsewhere, or replace it with `overwrite`",
                code="E_CHANGED",
            )
        hint = "" if self._resume else ", or continue the earlier run with `resume`"
        return OutputExistsError(f"{path}: already exists; replace it with `overwrite`{hint}")

    def _clear(self, begun: "_Begun") -> None:
        # Anything that cannot be removed now is removed by the next run, which finds it in the journal.
        with contextlib.suppress(OutputError):
            _clear_leftovers(begun.case)
        if begun.was_new:
            _unlink(begun.case.results)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _without_paths(self, message: str, case: Case) -> str:
        """Replace the scan's path in a message by the case name, and make paths of results relative to the folder."""
        scan, folder = os.fspath(case.scan), os.fspath(self._folder)
        for path in (os.path.abspath(scan), scan):
            message = message.replace(path, case.name)
        for path in (os.path.abspath(folder), folder):
            message = message.replace(path + os.sep, "") if path != os.curdir else message
        return hide_folders(message, ())


@dataclass(frozen=True, slots=True)
class _Begun:
    """A case that has started and not finished."""

    case: Case
    was_new: bool
    """Whether none of its results existed."""
    scan_stamp: list[int] | None
    """Of the scan when the case started (see `stamp`); None if it could not be examined."""


def _is(path: Path, sha256: str | None, known: Sequence[int] | None) -> bool:
    """Return whether a file is what was recorded: by its size, times and inode if they are known, else by its hash.

    Some network file systems change a file's times later, so another time alone does not mean another file.
    """
    if sha256 is None:
        return False
    if known is not None and stamp(path) == list(known):
        return True
    try:
        return file_sha256(path) == sha256
    except (OSError, NotAPlainFileError):
        # Whoever uses the file reports why it is unreadable.
        return False


def _and_more(paths: list[Path]) -> str:
    return f"{paths[0]} and {len(paths) - 1} more results" if len(paths) > 1 else f"{paths[0]}"


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
    for path in case.results:
        remove_leftovers(path)
