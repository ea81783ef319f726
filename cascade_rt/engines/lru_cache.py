"""A small LRU cache of closeable values."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Closeable(Protocol):
    """An object that holds device memory."""

    def close(self) -> None:
        """Free the memory."""
        ...


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Closeable)


class LruCache(Generic[Key, Value]):
    """Keeps the `size` most recently used values. Others are evicted and closed before a new value is made."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key, making it if it is not cached."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        # Evict first, so that the new value finds free memory.
        while len(self._values) >= self._size:
            self._values.popitem(last=False)[1].close()
        self._values[key] = make()
        return self._values[key]

    def clear(self) -> None:
        """Close all values."""
        while self._values:
            self._values.popitem()[1].close()
