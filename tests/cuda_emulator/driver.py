"""The emulated driver from Python: what it counts, and how much memory its GPUs have."""

import ctypes
from ctypes import c_char_p, c_int, c_uint64
from typing import Any


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
        self._structure = type("Counters", (ctypes.Structure,), {"_fields_": [(name, c_uint64) for name in names]})

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

    def limit_memory(self, size: int, device: int = 0) -> None:
        """Set the memory of a device in bytes. What is allocated stays."""
        self._driver.emulator_set_memory_limit(device, size)

    def left_behind(self, device: int = 0) -> dict[str, int]:
        """Return whatever is not freed on a device and in the calling thread: empty if nothing is."""
        names = ("blocks", "pinned_blocks", "primary_references", "modules", "streams", "events", "graphs")
        counters = self.counters(device)
        left = {name: getattr(counters, name) for name in names} | {"context_depth": self.context_depth}
        return {name: count for name, count in left.items() if count}


def is_emulated() -> bool:
    """Return whether the NVIDIA driver that this process finds is the emulated one."""
    try:
        Emulator()
    except (OSError, AttributeError):
        return False
    return True
