"""Decompress a stream, verifying its checksums and never producing more than was requested.

A file with several gzip or bzip2 members is read as one stream. Trailing bytes after the last member are not mistaken
for damage, because the checksum of that member has already been verified.
"""

import bz2
from abc import ABC, abstractmethod
from typing import Any, BinaryIO

from isal import igzip_lib

from cascade_rt.scans.nifti.gate import RejectedFile

MAGIC = b"\x1f\x8b"
_BZIP2_MAGIC = b"BZh"
_INPUT_BYTES = 256 << 10


class DecompressedStream(ABC):
    """Decompresses a file from its current position, never more than requested.

    Raises:
        EOFError: The file ends inside a member.
        isal.igzip_lib.IsalError, RejectedFile: A member is damaged, or its checksum or length does not match its
            content.
    """

    name: str
    """The name of the compression in messages."""
    largest_ratio: int
    """The most bytes that one compressed byte can stand for."""
    garbage_follows: bool = False
    """Whether anything other than zeros followed the last member. Valid only at the end of the stream."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._member = self._new_member()
        self._pending = b""

    @abstractmethod
    def _new_member(self) -> Any:
        """Return a decompressor with the interface of `bz2.BZ2Decompressor`."""

    @abstractmethod
    def _starts_member(self, following: bytes) -> bool:
        """Return whether the bytes after a member are another one."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of a non-empty buffer, and return the number of bytes written; 0 at the end of the stream."""
        while True:
            if self._member.eof and not self._next_member():
                return 0
            content = self._member.decompress(self._take_input(), len(buffer))
            if content:
                buffer[: len(content)] = content
                return len(content)

    def _take_input(self) -> bytes:
        """Return the next compressed bytes, or none while the decompressor still has input left."""
        if not self._member.needs_input:
            return b""
        compressed, self._pending = self._pending or self._file.read(_INPUT_BYTES), b""
        if not compressed:
            raise EOFError
        return compressed

    def _next_member(self) -> bool:
        """Start the next member. Returns False if there is none."""
        following = self._member.unused_data.lstrip(b"\0")
        while len(following) < len(_BZIP2_MAGIC) and (more := self._file.read(_INPUT_BYTES)):
            following = (following + more).lstrip(b"\0")
        if not self._starts_member(following):
            self.garbage_follows = self.garbage_follows or bool(following)
            return False
        self._member = self._new_member()
        self._pending = following
        return True


class GunzipStream(DecompressedStream):
    """Decompresses gzip."""

    name, largest_ratio = "gzip", 1032

    def _new_member(self) -> Any:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    def _starts_member(self, following: bytes) -> bool:
        return following.startswith(MAGIC)


class ZlibStream(DecompressedStream):
    """Decompresses one zlib stream."""

    name, largest_ratio = "zlib", 1032

    def _new_member(self) -> Any:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)

    def _starts_member(self, following: bytes) -> bool:  # noqa: ARG002  zlib has no members
        return False


class Bunzip2Stream(DecompressedStream):
    """Decompresses bzip2."""

    # A run of zeros that fills a block of 900 kB stands for 46 MB, and such a block takes about 40 bytes.
    name, largest_ratio = "bzip2", 1 << 21

    def _new_member(self) -> Any:
        return bz2.BZ2Decompressor()

    def _starts_member(self, following: bytes) -> bool:
        return following.startswith(_BZIP2_MAGIC)

    def readinto(self, buffer: memoryview) -> int:
        """See `DecompressedStream.readinto`."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            # bz2 reports damage as an OSError without a number, which those of the operating system have.
            if error.errno is not None:
                raise
            raise RejectedFile("E_CORRUPT", "its compressed data are damaged; copy it again") from error
