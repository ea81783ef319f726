"""Which NVIDIA GPU and driver there are, asked of the driver itself; needs no package."""

import ctypes
import sys
from typing import Any

from cascade_rt.engines.engine_cache import Machine
from cascade_rt.errors import BackendUnavailableError

_MAJOR, _MINOR = 75, 76
"""What `cuDeviceGetAttribute` calls the two parts of the compute capability."""


def this_machine(index: int = 0) -> Machine:
    """What compiled engines are bound to on this machine.

    Args:
        index: Which GPU, as CUDA counts them.

    Raises:
        BackendUnavailableError: There is no driver, or no such GPU.
    """
    cuda = _open_library("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    _check(cuda.cuInit(0), "the driver cannot be started")
    device = ctypes.c_int()
    _check(cuda.cuDeviceGet(ctypes.byref(device), index), f"there is no GPU {index}")
    name = ctypes.create_string_buffer(256)
    _check(cuda.cuDeviceGetName(name, len(name), device), f"GPU {index} does not tell its name")
    major, minor = (_attribute(cuda, number, device) for number in (_MAJOR, _MINOR))
    return Machine(name.value.decode(errors="replace"), f"{major}.{minor}", _driver_version())


def _attribute(cuda: Any, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _check(cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device), "the GPU does not tell its generation")
    return value.value


def _driver_version() -> str:
    """The version that `nvidia-smi` shows; the one of CUDA is the same for many drivers."""
    management = _open_library("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    _check(management.nvmlInit_v2(), "the driver cannot be asked for its version")
    version = ctypes.create_string_buffer(80)
    try:
        _check(management.nvmlSystemGetDriverVersion(version, len(version)), "the driver does not tell its version")
    finally:
        management.nvmlShutdown()
    return version.value.decode(errors="replace")


def _open_library(name: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise BackendUnavailableError(
            f"there is no NVIDIA driver on this machine ({name} cannot be loaded); install one, or take another backend"
        ) from error


def _check(code: int, problem: str) -> None:
    if code != 0:
        raise BackendUnavailableError(f"{problem} (error {code}); does nvidia-smi run?")
