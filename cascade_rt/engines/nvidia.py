"""Detect an NVIDIA GPU by asking the driver directly, so that no package has to be installed."""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cascade_rt.errors import BackendUnavailableError

Load = Callable[[str], Any]

_DRIVER, _MANAGEMENT = ("nvcuda.dll", "nvml.dll") if os.name == "nt" else ("libcuda.so.1", "libnvidia-ml.so.1")
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR in cuda.h."""
_OLDEST_CUDA = 13
"""The major version of CUDA that the packages of the extras `gpu` and `tensorrt` are built for."""
_OLDEST_DRIVER = 580
"""The first driver that runs CUDA 13."""
_LEAST_CAPABILITY = (7, 5)
"""The oldest generation that CUDA 13 supports: Turing."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first NVIDIA GPU that this process sees."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    driver: str
    """Version of the driver, or empty if its management library is missing or fails."""
    cuda: str
    """Newest CUDA version that the driver supports."""

    @property
    def unsupported(self) -> str:
        """Why the packages for GPUs cannot run here whatever is installed, and what helps; empty if they can."""
        if self.compute_capability < _LEAST_CAPABILITY:
            return (
                f"{self.name} has compute capability {_dotted(self.compute_capability)}, and CUDA {_OLDEST_CUDA} "
                f"needs {_dotted(_LEAST_CAPABILITY)} (Turing) or later; use another GPU"
            )
        if int(self.cuda.partition(".")[0]) < _OLDEST_CUDA:
            driver = f"driver {self.driver}".rstrip()
            return (
                f"the NVIDIA {driver} runs CUDA up to {self.cuda}, and the packages for GPUs need "
                f"CUDA {_OLDEST_CUDA}; install driver {_OLDEST_DRIVER} or later"
            )
        return ""


def find_gpu(load: Load | None = None) -> Gpu:
    """Return the driver's first GPU.

    Args:
        load: Opens a shared library by name. None means `ctypes.CDLL`.

    Raises:
        BackendUnavailableError: There is no driver, or it reports no GPU. The message says which.
    """
    load = load or ctypes.CDLL
    try:
        driver = load(_DRIVER)
    except OSError:
        raise BackendUnavailableError(f"this machine has no NVIDIA driver (no {_DRIVER})") from None
    _call(driver, "cuInit", 0)
    device, version, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=(_attribute(driver, device, _MAJOR), _attribute(driver, device, _MINOR)),
        memory_bytes=memory.value,
        driver=_driver_version(load),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def require_gpu(backend: str) -> Gpu:
    """Return the GPU that a backend will run on.

    Raises:
        BackendUnavailableError: There is no GPU, or it or its driver is too old for CUDA 13. The message is one
            sentence that names the backend.
    """
    try:
        gpu = find_gpu()
    except BackendUnavailableError as error:
        raise BackendUnavailableError(
            f"backend {backend!r} needs an NVIDIA GPU, but {error}; choose another `backend`, or auto"
        ) from None
    if gpu.unsupported:
        raise BackendUnavailableError(
            f"backend {backend!r} cannot run: {gpu.unsupported}, or choose another `backend`, or auto"
        )
    return gpu


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _attribute(driver: Any, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def _call(driver: Any, function: str, *arguments: object) -> None:
    status = getattr(driver, function)(*arguments)
    if status != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        meaning = (text.value or b"unknown error").decode(errors="replace")
        raise BackendUnavailableError(f"the NVIDIA driver reports none ({function}: CUDA error {status}, {meaning})")


def _driver_version(load: Load) -> str:
    version = ctypes.create_string_buffer(96)
    try:
        management = load(_MANAGEMENT)
    except OSError:
        return ""
    if management.nvmlInit_v2() != 0 or management.nvmlSystemGetDriverVersion(version, len(version)) != 0:
        return ""
    return version.value.decode(errors="replace")


def driver_library() -> Any:
    """Return the driver's library, which must exist."""
    return ctypes.CDLL(_DRIVER)
