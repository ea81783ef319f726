"""Numbers from the elements of a header, without the conversion of pydicom, which takes longer than all else here."""

from typing import Any

_BINARY = {"US", "SS", "UL", "SL"}
_SIGNED = {"SS", "SL"}
_NUMBER_OF_FRAMES = 0x00280008
"""The only one that is text of any length, also where the header does not name the type."""


def numbers(dataset: Any, tag: int) -> tuple[float, ...] | None:
    """Return the numbers of a decimal or integer string; None if the element is missing or empty.

    Raises:
        ValueError: The text is not a list of numbers.
    """
    element = dataset.get_item(tag)
    if element is None or element.value in (None, ""):
        return None
    value = element.value
    if isinstance(value, bytes):
        text = value.decode("ascii").strip(" \0")
        return tuple(map(float, text.split("\\"))) if text else None
    return tuple(map(float, value)) if hasattr(value, "__iter__") else (float(value),)


def number(dataset: Any, tag: int) -> float | None:
    """Return the number of an element; None if it is missing or empty. Raises ValueError if there are several."""
    found = numbers(dataset, tag)
    if found is None:
        return None
    (value,) = found
    return value


def integer(dataset: Any, tag: int, default: int | None = None) -> int | None:
    """Return the integer of an element of group 0028; the default if it is missing or empty.

    Raises:
        ValueError: There are several, or it is not an integer.
    """
    element = dataset.get_item(tag)
    if element is None or element.value in (None, "", b""):
        return default
    value = element.value
    if not isinstance(value, bytes):
        return int(value)
    kind = getattr(element, "VR", None)
    if kind in _BINARY or (kind is None and len(value) == 2 and tag != _NUMBER_OF_FRAMES):
        order = "little" if element.is_little_endian else "big"
        return int.from_bytes(value, order, signed=kind in _SIGNED)  # type: ignore[arg-type]
    text = value.decode("ascii").strip(" \0")
    return int(text) if text else default
