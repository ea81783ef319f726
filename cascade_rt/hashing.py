"""The hash that tells whether a file is the one that was written."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was when it was looked at."""

    sha256: str
    bytes: int


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_file(path: Path) -> FileRecord:
    """Hash and size of a file."""
    return FileRecord(file_sha256(path), path.stat().st_size)
