"""What was used last is kept; the rest is closed."""

import pytest

from cascade_rt.engines.lru_cache import LruCache


class Slot:
    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_value_is_made_once_while_it_is_kept() -> None:
    store = LruCache[str, Slot](2)
    assert store.get("a", lambda: Slot("first")) is store.get("a", lambda: Slot("second"))


def test_the_one_not_used_for_longest_is_closed_first() -> None:
    store = LruCache[str, Slot](2)
    slots = {name: store.get(name, lambda name=name: Slot(name)) for name in "ab"}
    store.get("a", lambda: Slot("never"))
    store.get("c", lambda: Slot("c"))
    assert {name: slot.closed for name, slot in slots.items()} == {"a": 0, "b": 1}


def test_room_is_made_before_a_value_is() -> None:
    store = LruCache[str, Slot](1)
    old = store.get("old", lambda: Slot("old"))
    closed_when_made = []

    def make() -> Slot:
        closed_when_made.append(old.closed)
        return Slot("new")

    store.get("new", make)
    assert closed_when_made == [1]


def test_clearing_closes_every_value_once() -> None:
    store = LruCache[str, Slot](2)
    slots = [store.get(name, lambda name=name: Slot(name)) for name in "ab"]
    store.clear()
    store.clear()
    assert [slot.closed for slot in slots] == [1, 1]


def test_a_store_of_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        LruCache[str, Slot](0)
