"""The emulated driver from Python: what it counts, and how much memory its GPUs have."""

import ctypes
from ctypes import c_char_p, c_int, c_uint64
from typing import Any

_FREED = ("blocks", "pinned_blocks", "primary_references", "modules", "streams", "events", "graphs")


class Emulator:
    """The emulated driver of this process.

    Raises:
        OSError: This machine has no NVIDIA driver, emulated or not.
        AttributeError: It has a real one.
    """

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._driver.emulator_counter_names.restype = c_char_p
        self._driver.emulator_set_memory_limit.argtypes = [c_int, c_uint64]
        names = self._driver.emulator_counter_names().decode().split()
        self._structure: Any = type("Counters", (ctypes.Structure,), {"_fields_": [(name, c_uint64) for name in names]})
        self._at_first = [self.counters(device) for device in range(self.devices)]

    @property
    def devices(self) -> int:
        """Number of GPUs of the machine, whatever CUDA_VISIBLE_DEVICES says."""
        return int(self._driver.emulator_device_count())

    @property
    def context_depth(self) -> int:
        """Number of contexts on the stack of the calling thread."""
        return int(self._driver.emulator_context_depth())

    def counters(self, device: int = 0) -> Any:
        """Return a copy of what is counted of a device: one attribute for each name in `emulator.h`."""
        found = self._structure()
        self._driver.emulator_counters(device, ctypes.byref(found))
        return found

    def since(self, counter: str, device: int = 0) -> int:
        """Return by how much a counter of a device has grown since this object was made."""
        return int(getattr(self.counters(device), counter) - getattr(self._at_first[device], counter))

    def limit_memory(self, size: int, device: int = 0) -> None:
        """Set the memory of a device in bytes. What is allocated stays."""
        self._driver.emulator_set_memory_limit(device, size)

    def left_behind(self, device: int = 0) -> dict[str, int]:
        """Return what was made since this object was and is not freed, on a device and in the calling thread."""
        left = {name: self.since(name, device) for name in _FREED} | {"context_depth": self.context_depth}
        return {name: count for name, count in left.items() if count}


def is_emulated() -> bool:
    """Return whether the NVIDIA driver that this process finds is the emulated one."""
    try:
        Emulator()
    except (OSError, AttributeError):
        return False
    return True
