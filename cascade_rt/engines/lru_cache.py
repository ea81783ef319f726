"""A small store that forgets what was not used for longest."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Closeable(Protocol):
    """Something that holds memory of a device."""

    def close(self) -> None:
        """Free it."""
        ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Closeable)


class LruCache(Generic[Key, Value]):
    """Keeps the `size` values used last; the others are closed before a new one is made, so that it finds room."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key; made where it is not there (any more)."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        while len(self._values) >= self._size:
            self._values.popitem(last=False)[1].close()
        self._values[key] = make()
        return self._values[key]

    def clear(self) -> None:
        """Close all values."""
        while self._values:
            self._values.popitem()[1].close()
