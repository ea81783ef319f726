"""A document has one meaning or is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.common.strict_json import MAX_DEPTH, is_control, parse_strict_json

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")).filter(lambda letter: not is_control(letter)))
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXT, inside, max_size=4),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_plain_documents_are_read_as_json_reads_them(document: object) -> None:
    assert parse_strict_json(json.dumps(document, ensure_ascii=False).encode()) == document


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read(content: bytes) -> None:
    try:
        document = parse_strict_json(content)
    except ValueError:
        return
    assert document == json.loads(content)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        (b'{"files": {"a": 1, "a": 1}}', "has the key 'a' twice"),
        (b'{"a": NaN}', "contains NaN"),
        (b"[-Infinity]", "contains -Infinity"),
        (b"[1e999]", "1e999, which is too large"),
        (b'["\\u001b[2J"]', "has control characters"),
        (b'{"\\u0007": 1}', "has control characters"),
        (b'["\\ud800"]', "has control characters"),
        (b"\xef\xbb\xbf{}", "BOM|Expecting value"),
        (b'["\xff"]', "can't decode byte 0xff"),
        (b"{} {}", "Extra data"),
        (b"[" + b"9" * 5000 + b"]", "integer string conversion"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "is nested deeper than 32 levels"),
        (b"[" * 100_000, "is nested deeper than 32 levels"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_strict_json(content)


@pytest.mark.parametrize("letter", "\u202a\u202e\u2066\u2069\u200e\u200f\u061c\u2028\u2029\x7f\x9b")
def test_what_turns_text_around_or_ends_a_line_is_a_control_character(letter: str) -> None:
    with pytest.raises(ValueError, match="has control characters"):
        parse_strict_json(json.dumps([f"name{letter}"], ensure_ascii=False).encode())


def test_letters_of_any_script_are_text() -> None:
    parse_strict_json('["Müller שלום مرحبا 日本 \u200c क्ष"]'.encode())


def test_the_deepest_nesting_is_read() -> None:
    parse_strict_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
