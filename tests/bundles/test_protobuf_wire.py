"""The wire format is read to the last byte or refused; nothing is read twice, nothing beyond the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.bundles.protobuf_wire import WireError, WireType, read_fields


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def written(number: int, kind: WireType, value: int | bytes) -> bytes:
    tag = varint(number << 3 | kind)
    if isinstance(value, int):
        return tag + varint(value)
    return tag + (varint(len(value)) if kind == WireType.BYTES else b"") + value


NUMBERS = st.integers(1, (1 << 29) - 1)
FIELDS = st.one_of(
    st.tuples(NUMBERS, st.just(WireType.VARINT), st.integers(0, (1 << 64) - 1)),
    st.tuples(NUMBERS, st.just(WireType.BYTES), st.binary(max_size=200)),
    st.tuples(NUMBERS, st.just(WireType.FIXED32), st.binary(min_size=4, max_size=4)),
    st.tuples(NUMBERS, st.just(WireType.FIXED64), st.binary(min_size=8, max_size=8)),
)


@given(st.lists(FIELDS, max_size=8))
def test_what_was_written_is_read(fields: list[tuple[int, WireType, int | bytes]]) -> None:
    message = b"".join(written(*field) for field in fields)
    found = [
        (field.number, field.wire_type, field.integer if field.wire_type == WireType.VARINT else bytes(field.content))
        for field in read_fields(memoryview(message))
    ]
    assert found == fields


@given(st.binary(max_size=400))
def test_garbage_is_read_within_its_bounds_or_refused(content: bytes) -> None:
    try:
        fields = list(read_fields(memoryview(content)))
    except WireError:
        return
    assert sum(len(field.content) for field in fields) <= len(content)
    assert len(fields) <= len(content) // 2


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"\x0a\x05abc", "field 1 is truncated"),
        (b"\x0d\x00\x00", "field 1 is truncated"),
        (b"\x08", "a varint is truncated"),
        (b"\x08\xff", "a varint is truncated"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "longer than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x00\x01", "field number 0 is invalid"),
        (varint(1 << 32) + b"\x01", "field number 536870912 is invalid"),
        (b"\x0b\x0c", "field 1 has invalid wire type 3"),
        (b"\x0f", "field 1 has invalid wire type 7"),
        (b"\x0a" + varint((1 << 64) - 1), "field 1 is truncated"),
    ],
)
def test_bytes_that_are_not_a_message_are_refused(message: bytes, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        list(read_fields(memoryview(message)))
