"""Schema-less reader of the Protocol Buffers wire format.

https://protobuf.dev/programming-guides/encoding/

Nothing is copied and there is no recursion: a nested message is another view of the same bytes, which the caller may
parse or not. So the work is bounded by the number of bytes times the number of levels the caller parses.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

MAX_FIELD_NUMBER = (1 << 29) - 1
_LONGEST_VARINT = 10


class WireType(IntEnum):
    """How a value is encoded."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    """Text, bytes, a message, or packed numbers."""
    FIXED32 = 5


_WIRE_TYPES = {int(kind): kind for kind in WireType}
_FIXED_LENGTHS = {WireType.FIXED64: 8, WireType.FIXED32: 4}


class WireError(ValueError):
    """The bytes are not a valid message; the error message says where."""


class Field(NamedTuple):
    """One field of a message as encoded."""

    number: int
    wire_type: WireType
    integer: int
    """The unsigned value if the field is a varint, else 0."""
    content: memoryview
    """The bytes of the value if the field is not a varint, else empty."""


def read_fields(message: memoryview) -> Iterator[Field]:
    """Read the fields of a message in the order in which they are encoded.

    Args:
        message: One-dimensional view of the bytes.

    Raises:
        WireError: A field is truncated, has an invalid number, or has an obsolete or unknown wire type.
    """
    position, end = 0, len(message)
    empty = message[:0]
    while position < end:
        tag, position = _read_varint(message, position)
        number, kind = tag >> 3, _WIRE_TYPES.get(tag & 7)
        if not 1 <= number <= MAX_FIELD_NUMBER:
            raise WireError(f"field number {number} is invalid")
        if kind is None:
            raise WireError(f"field {number} has invalid wire type {tag & 7}")
        if kind is WireType.VARINT:
            integer, position = _read_varint(message, position)
            yield Field(number, kind, integer, empty)
            continue
        if kind is WireType.BYTES:
            length, position = _read_varint(message, position)
        else:
            length = _FIXED_LENGTHS[kind]
        if length > end - position:
            raise WireError(f"field {number} is truncated")
        yield Field(number, kind, 0, message[position : position + length])
        position += length


def read_varints(content: memoryview) -> Iterator[int]:
    """Read packed varints.

    Raises:
        WireError: The last varint is truncated, or one is too long.
    """
    position = 0
    while position < len(content):
        number, position = _read_varint(content, position)
        yield number


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a varint of up to 64 bits; return its value and the position after it."""
    if position < len(message) and message[position] < 0x80:
        return message[position], position + 1
    value = 0
    for index in range(_LONGEST_VARINT):
        if position + index >= len(message):
            raise WireError("a varint is truncated")
        byte = message[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 1 << 64:
                raise WireError("a varint has more than 64 bits")
            return value, position + index + 1
    raise WireError("a varint is longer than 10 bytes")
