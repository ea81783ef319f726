"""Record what the cases of a store were made from, to detect when inputs or settings have changed.

The content of each input is hashed. A stamp of the names, sizes and modification times of its files recognizes an
unchanged input without reading it.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cascade_rt.common.folders import raise_unreadable, walk_folder
from cascade_rt.common.hashing import file_sha256
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.errors import InputError
from cascade_rt.scans.dicom import is_dicom
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.text_header import detached_file, record_with_detached

_FILES = "files"


def reading_settings(reading: ScanOptions) -> dict[str, Any]:
    """Return the reading options that affect the content of the store."""
    return {name: getattr(reading, name) for name in ("volume", "assume_orientation", "hu_offset", "scattered")}


def record_inputs(inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Return the record of the input files of a case, as plain values without file or folder names.

    Args:
        inputs: Role of each input, such as `label`, and its file or the folder of a DICOM series.

    Raises:
        InputError: A file cannot be read.
    """
    return {_FILES: {what: {"stamp": _stamp(path), "sha256": _content(path)} for what, path in inputs.items()}}


def is_recorded(source: Mapping[str, Any]) -> bool:
    """Return whether the input files of a case were recorded. Earlier versions did not record them."""
    return isinstance(source.get(_FILES), dict)


def content_of(source: Mapping[str, Any], what: str) -> str | None:
    """Return the hash of an input of a case, or None if it was not recorded."""
    record = source[_FILES].get(what) if is_recorded(source) else None
    return str(record["sha256"]) if isinstance(record, dict) and "sha256" in record else None


def differences(source: Mapping[str, Any], settings: Mapping[str, Any], inputs: Mapping[str, Path]) -> list[str]:
    """List the differences between a stored case and what would be made from the current inputs and settings.

    Args:
        source: The record of the store. Entries that it lacks are not compared.
        settings: The requested settings.
        inputs: The current files, as in `record_inputs`.

    Raises:
        InputError: A file cannot be read.
    """
    found = [
        f"{name} {source[name]!r} instead of {wanted!r}"
        for name, wanted in settings.items()
        if name in source and source[name] != wanted
    ]
    recorded = source[_FILES] if is_recorded(source) else {}
    for what, path in inputs.items():
        record = recorded.get(what)
        if isinstance(record, dict) and not _is_same(record, path):
            found.append(f"a different {what} from {path.name}")
    return found


def _is_same(record: Mapping[str, Any], path: Path) -> bool:
    return record.get("stamp") == _stamp(path) or record.get("sha256") == _content(path)


def _stamp(path: Path) -> str:
    stamp = hashlib.sha256()
    for file in _files(path):
        try:
            status = file.stat()
        except OSError as error:
            raise _unreadable(file, error) from error
        stamp.update(
            f"{os.path.relpath(file, path)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="replace")
        )
    return stamp.hexdigest()


def _content(path: Path) -> str:
    """Hash a file, or the DICOM files in a folder regardless of their names."""
    try:
        if not path.is_dir():
            return record_with_detached(path).sha256
        hashes = sorted(file_sha256(file) for file in _files(path) if is_dicom(file))
    except NotAPlainFileError as error:
        raise InputError(f"{path}: {error}; choose a plain file", code="E_NOT_A_FILE") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        if (detached := detached_file(path)) is not None:
            yield detached
        return
    for content in walk_folder(path, raise_unreadable):
        yield from (content.path / name for name in content.files if not name.startswith("."))


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{os.fspath(path)}: cannot be read ({error.strerror}); check its permissions and its disk")
