"""Strict JSON parsing for untrusted documents: only unambiguous documents are accepted."""

import json
import math
import unicodedata
from typing import Any

MAX_DEPTH = 32
"""Maximum nesting depth of lists and objects."""
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, surrogates, line separators and paragraph separators."""
_DIRECTIONS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Bidirectional classes of characters that change the display order of the text around them."""
_MARKS = frozenset("\u061c\u200e\u200f")
"""The three marks that also do this but have the bidirectional class of a letter."""


def parse_strict_json(content: bytes) -> Any:
    """Parse a JSON document.

    Stricter than `json.loads`: keys must be unique, numbers finite, and text UTF-8 without a byte order mark and
    without control characters, which could control the terminal they are shown on or reverse the displayed text.

    Raises:
        ValueError: The document violates these rules. The message says how.
    """
    try:
        document = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels") from error
    _check_values(document)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = min(name for name in found if names.count(name) > 1)
        raise ValueError(f"has the key {twice!r} twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"contains {name}, which is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"contains the number {text[:20]}, which is too large")
    return number


def _check_values(document: Any) -> None:
    """Check every string and the nesting depth, without recursion."""
    waiting = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
            inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            waiting.extend((each, depth + 1) for each in inside)


def is_control(letter: str) -> bool:
    """Whether a character is a control, surrogate, separator or bidirectional character, not allowed in text."""
    return (
        unicodedata.category(letter) in _CONTROLS
        or unicodedata.bidirectional(letter) in _DIRECTIONS
        or letter in _MARKS
    )


def _check_text(text: str) -> None:
    if any(map(is_control, text)):
        raise ValueError(f"contains the text {text[:40]!r}, which has control characters")
