"""What a case of a store was made from, so that a store is not taken for one that was made from something else.

Of each input the content is hashed. A stamp of names, sizes and times of its files tells without reading them that it
is the same one.
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

_FILES = "files"


def reading_settings(reading: ScanOptions) -> dict[str, Any]:
    """Those options on how a scan is read that change what a store holds of it."""
    return {name: getattr(reading, name) for name in ("volume", "assume_orientation", "hu_offset", "scattered")}


def record_inputs(inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Return what a store keeps of the files of a case, as plain values without names of files or folders.

    Args:
        inputs: What each is, such as `label`, and the file, or the folder of a DICOM series.

    Raises:
        InputError: A file cannot be read.
    """
    return {_FILES: {what: {"stamp": _stamp(path), "sha256": _content(path)} for what, path in inputs.items()}}


def is_recorded(source: Mapping[str, Any]) -> bool:
    """Whether a store knows which files a case was made from; earlier versions did not record it."""
    return isinstance(source.get(_FILES), dict)


def content_of(source: Mapping[str, Any], what: str) -> str | None:
    """The hash of an input that a case was made from, where the store knows it."""
    record = source[_FILES].get(what) if is_recorded(source) else None
    return str(record["sha256"]) if isinstance(record, dict) and "sha256" in record else None


def differences(source: Mapping[str, Any], settings: Mapping[str, Any], inputs: Mapping[str, Path]) -> list[str]:
    """Say in which ways a case of a store is not what would be made of it now.

    Args:
        source: What the store says that it was made from. What it does not say is not compared.
        settings: What is asked for now.
        inputs: The files now, as in `record_inputs`.

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
            found.append(f"another {what} than {path.name}")
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
        stamp.update(f"{file.relative_to(path)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="replace"))
    return stamp.hexdigest()


def _content(path: Path) -> str:
    """The hash of a file, or of the DICOM files in a folder, whatever they are called."""
    try:
        if not path.is_dir():
            return file_sha256(path)
        hashes = sorted(file_sha256(file) for file in _files(path) if is_dicom(file))
    except NotAPlainFileError as error:
        raise InputError(f"{path}: {error}; name a plain file", code="E_NOT_A_FILE") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for content in walk_folder(path, raise_unreadable):
        yield from (content.path / name for name in content.files if not name.startswith("."))


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{os.fspath(path)}: cannot be read ({error.strerror}); check its permissions and its disk")
