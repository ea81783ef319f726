"""Schema of the free-form parts of a manifest, limited to the values that are read.

The export writes more into these parts than any code reads, and later versions may add more. So values that are read
must match the schema, and the rest is unrestricted. A manifest that does not match is rejected when the bundle is
opened, not later when a value is needed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar of one of the given types. Types must match exactly, so a bool is not an int."""

    name: str
    types: tuple[type, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list whose entries all have the given shape."""

    entry: "Shape"


@dataclass(frozen=True, slots=True)
class TableOf:
    """An object with arbitrary keys whose values all have the given shape."""

    value: "Shape"


@dataclass(frozen=True, slots=True)
class Table:
    """An object with a shape for each known key; other keys are unrestricted."""

    required: Mapping[str, "Shape"] = field(default_factory=dict)
    optional: Mapping[str, "Shape"] = field(default_factory=dict)


Shape = Value | ListOf | TableOf | Table

_TEXT, _NUMBER, _COUNT = Value("a string", (str,)), Value("a number", (int, float)), Value("an integer", (int,))
_NUMBER_OR_NONE = Value("a number or null", (int, float, type(None)))
_COUNT_OR_NONE = Value("an integer or null", (int, type(None)))
_NAMES = ListOf(_TEXT)
_AGREEMENT = Table({"mask_dice": _NUMBER_OR_NONE, "max_error": _NUMBER})
_GATE = Table(
    {
        "engine": Table({"backend": _TEXT, "device": _TEXT}),
        "slices": _COUNT,
        "organ": _AGREEMENT,
        "tumor": _AGREEMENT,
        "boxes_moved": _NAMES,
        "tumors_appeared": _NAMES,
        "tumors_vanished": _NAMES,
    }
)
_STAGE = Table(optional={"max_error": TableOf(_NUMBER)})
_HALF = Table(
    {"kept": ListOf(Table({"nodes": _NAMES})), "half_share_of_convolutions": _NUMBER_OR_NONE},
    {"dropped_by_search": _COUNT_OR_NONE},
)
FREE_PARTS: Mapping[str, Shape] = {
    "parity": Table(
        optional={"stage1": _STAGE, "stage2": _STAGE, "gate": TableOf(_GATE), "half_precision_left_out": _TEXT}
    ),
    "half_precision": TableOf(_HALF),
    "training": Table({"data": _TEXT}, {"epochs": _COUNT}),
}
"""The shape of each part."""


def check_shape(value: Any, shape: Shape, where: str) -> None:
    """Raise ValueError if a value of a JSON document does not have the given shape. The message names the value."""
    if isinstance(shape, Value):
        _check_value(value, shape, where)
    elif isinstance(shape, ListOf):
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a JSON array, got {value!r}")
        for number, entry in enumerate(value):
            check_shape(entry, shape.entry, f"{where}[{number}]")
    else:
        _check_table(value, shape, where)


def _check_value(value: Any, shape: Value, where: str) -> None:
    if type(value) not in shape.types or (type(value) is int and not _is_float(value)):
        raise ValueError(f"{where} must be {shape.name}, got {value!r}")


def _is_float(number: int) -> bool:
    """Whether an integer can be converted to a float, as which it is displayed."""
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _check_table(value: Any, shape: TableOf | Table, where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a JSON object, got {value!r}")
    if isinstance(shape, TableOf):
        known: Mapping[str, Shape] = dict.fromkeys(value, shape.value)
    else:
        known = {**shape.required, **shape.optional}
        for key in shape.required:
            if key not in value:
                raise ValueError(f"{where} is missing the key {key}")
    for key, inside in known.items():
        if key in value:
            check_shape(value[key], inside, f"{where}.{key}")
