"""The functions of the emulated CUDA driver that TensorRT calls."""

import ctypes
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

import numpy as np

driver: Any = ctypes.CDLL("libcuda.so.1")
HostFunction = ctypes.CFUNCTYPE(None, c_void_p)
driver.cuLaunchHostFunc.argtypes = [c_void_p, HostFunction, c_void_p]
driver.cuStreamIsCapturing.argtypes = [c_void_p, c_void_p]
driver.cuMemAlloc_v2.argtypes = [c_void_p, c_size_t]
driver.emulator_check.argtypes = [c_uint64, c_size_t, c_char_p]
driver.emulator_check.restype = c_bool
driver.emulator_violation.argtypes = [c_char_p]


def is_capturing(stream: int) -> bool:
    status = c_int()
    driver.cuStreamIsCapturing(stream, ctypes.byref(status))
    return status.value != 0


def allocate_a_little() -> None:
    driver.cuMemAlloc_v2(ctypes.byref(c_uint64()), 256)


def device_array(address: int, shape: tuple[int, ...], kind: Any, what: str) -> np.ndarray | None:
    """Memory of the device as an array. None if it does not lie there, which the driver has counted as a violation."""
    kind = np.dtype(kind)
    size = int(np.prod(shape)) * kind.itemsize
    if size and not driver.emulator_check(address, size, what.encode()):
        return None
    return np.frombuffer((ctypes.c_char * size).from_address(address), kind).reshape(shape)
