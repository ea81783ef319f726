"""A gzip file as a stream of bytes whose checksums are verified, and nothing read into the air.

A file of several members is one stream. What follows the last member is told apart from damage: by then the checksum of
the member before it has been found right.
"""

from typing import BinaryIO

from isal import igzip_lib

MAGIC = b"\x1f\x8b"
_INPUT_BYTES = 256 << 10


class GunzipStream:
    """Decompresses a file from its current position on; never more than it is asked for.

    Raises:
        EOFError: The file ends inside a member.
        isal.igzip_lib.IsalError: A member is damaged, or its checksum or its length are not those of its content.
    """

    garbage_follows: bool = False
    """Whether something else than another member, or zeros, followed the last member; known at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._pending = b""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of a buffer, which must not be empty, and return how many bytes that are; 0 at the end."""
        while True:
            if self._member.eof and not self._next_member():
                return 0
            content = self._member.decompress(self._take_input(), len(buffer))
            if content:
                buffer[: len(content)] = content
                return len(content)

    def _take_input(self) -> bytes:
        """What the decompressor is to be given: nothing as long as it has some left."""
        if not self._member.needs_input:
            return b""
        compressed, self._pending = self._pending or self._file.read(_INPUT_BYTES), b""
        if not compressed:
            raise EOFError
        return compressed

    def _next_member(self) -> bool:
        """Begin with the next member; False where there is none."""
        following = self._member.unused_data.lstrip(b"\0")
        while len(following) < len(MAGIC) and (more := self._file.read(_INPUT_BYTES)):
            following = (following + more).lstrip(b"\0")
        if not following.startswith(MAGIC):
            self.garbage_follows = self.garbage_follows or bool(following)
            return False
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._pending = following
        return True
