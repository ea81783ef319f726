"""Stream a gzip file, verifying each member's checksum and never producing more than was requested.

A file with several gzip members is read as one stream. Trailing bytes after the last member are not mistaken for
damage, because the checksum of that member has already been verified.
"""

from typing import BinaryIO

from isal import igzip_lib

MAGIC = b"\x1f\x8b"
_INPUT_BYTES = 256 << 10


class GunzipStream:
    """Decompresses a file from its current position, never more than requested.

    Raises:
        EOFError: The file ends inside a member.
        isal.igzip_lib.IsalError: A member is damaged, or its checksum or length does not match its content.
    """

    garbage_follows: bool = False
    """Whether anything other than zeros followed the last member. Valid only at the end of the stream."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._pending = b""

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
        """Start the next gzip member. Returns False if there is none."""
        following = self._member.unused_data.lstrip(b"\0")
        while len(following) < len(MAGIC) and (more := self._file.read(_INPUT_BYTES)):
            following = (following + more).lstrip(b"\0")
        if not following.startswith(MAGIC):
            self.garbage_follows = self.garbage_follows or bool(following)
            return False
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._pending = following
        return True
