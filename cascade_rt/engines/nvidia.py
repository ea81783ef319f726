"""Find the NVIDIA GPUs, and choose one, by asking the driver directly, so that no package has to be installed."""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from cascade_rt.errors import BackendUnavailableError, UsageError

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
_MULTIPROCESSORS = 16
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT in cuda.h."""
_HIDING = "CUDA_VISIBLE_DEVICES"
"""Environment variable with which the driver hides GPUs from a process, and renumbers the others."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU that this process sees."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    driver: str
    """Version of the driver, or empty if its management library is missing or fails."""
    cuda: str
    """Newest CUDA version that the driver supports."""
    multiprocessors: int = 0
    """Number of multiprocessors, in which GPUs of one name may differ."""
    index: int = 0
    """Its number among the GPUs that this process sees."""

    def __str__(self) -> str:
        """Name and number, as in reports."""
        return f"{self.name} (GPU {self.index})"

    @property
    def model(self) -> tuple[str, tuple[int, int], int]:
        """What an engine is compiled for. GPUs of one model use the same engines."""
        return self.name, self.compute_capability, self.multiprocessors

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


def find_gpus(load: Load | None = None) -> tuple[Gpu, ...]:
    """Return all GPUs that this process sees, in the driver's order.

    Args:
        load: Opens a shared library by name. None means `ctypes.CDLL`.

    Raises:
        BackendUnavailableError: There is no driver, or it reports no GPU. The message says which.
    """
    load = load or ctypes.CDLL
    driver = _open_driver(load)
    count, version = ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    if count.value == 0:
        raise BackendUnavailableError("the NVIDIA driver reports none")
    driver_version, cuda = _driver_version(load), f"{version.value // 1000}.{version.value % 1000 // 10}"
    return tuple(_describe(driver, index, driver_version, cuda) for index in range(count.value))


def find_gpu(load: Load | None = None, *, device: int = 0) -> Gpu:
    """Return one GPU.

    Args:
        load: Opens a shared library by name. None means `ctypes.CDLL`.
        device: Its number among the GPUs that this process sees.

    Raises:
        BackendUnavailableError: There is no driver, or it reports no GPU. The message says which.
        UsageError: There are GPUs, but none has this number. The message lists them.
    """
    gpus = find_gpus(load)
    if 0 <= device < len(gpus):
        return gpus[device]
    listed = " and ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus)
    left = f", which {_HIDING} leaves" if _HIDING in os.environ else ""
    raise UsageError(f"there is no GPU {device} here; choose from {listed}{left}")


def check_device(device: int) -> None:
    """Check that a GPU exists if it was asked for by a number other than 0, which is the default.

    Raises:
        BackendUnavailableError: There is no GPU at all.
        UsageError: There are GPUs, but none has this number. The message lists them.
    """
    if device > 0:
        _find_numbered(device)


def check_alike(devices: Sequence[int]) -> None:
    """Check that GPUs exist and are of one model, so that a result does not depend on which of them computes it.

    Raises:
        BackendUnavailableError: There is no GPU at all.
        UsageError: One of the numbers has no GPU, or two GPUs are of different models.
    """
    first, *others = [_find_numbered(device) for device in devices]
    for other in others:
        if other.model != first.model:
            both = " and ".join(f"{gpu}, {gpu.multiprocessors} multiprocessors," for gpu in (first, other))
            raise UsageError(
                f"{both} are different models: a mask might depend on which of them is free first; choose GPUs of one "
                "model, or start a run with `device` and `shard` for each"
            )


def _find_numbered(device: int) -> Gpu:
    """Return a GPU that was asked for by its number. Raises like `find_gpu`."""
    try:
        return find_gpu(device=device)
    except BackendUnavailableError as error:
        raise BackendUnavailableError(f"there is no GPU {device} here: {error}; name none to run on the CPU") from None


def require_gpu(backend: str, device: int = 0) -> Gpu:
    """Return the GPU that a backend will run on.

    Args:
        backend: Name of the backend, for the error message.
        device: Number of the GPU among those that this process sees.

    Raises:
        BackendUnavailableError: There is no GPU, or it or its driver is too old for CUDA 13. The message is one
            sentence that names the backend.
        UsageError: There are GPUs, but none has this number. The message lists them.
    """
    try:
        gpu = find_gpu(device=device)
    except BackendUnavailableError as error:
        raise BackendUnavailableError(
            f"backend {backend!r} needs an NVIDIA GPU, but {error}; choose another `backend`, or auto"
        ) from None
    if gpu.unsupported:
        raise BackendUnavailableError(
            f"backend {backend!r} cannot run: {gpu.unsupported}, or choose another `backend`, or auto"
        )
    return gpu


@contextmanager
def on_device(device: int) -> Iterator[None]:
    """Make a GPU current on the calling thread: TensorRT compiles for, and loads engines on, the current GPU.

    Raises:
        BackendUnavailableError: There is no such GPU, or the driver cannot start it.
    """
    driver, context = _primary_context(device)
    _call(driver, "cuCtxPushCurrent_v2", context)
    try:
        yield
    finally:
        _call(driver, "cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


@cache
def _primary_context(device: int) -> tuple[Any, ctypes.c_void_p]:
    """Return the driver and the context of a GPU that all libraries share.

    It is kept to the end of the process, as CUDA's runtime does, because objects of TensorRT may outlive the block that
    made them.
    """
    driver = driver_library()
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    _call(driver, "cuDeviceGet", ctypes.byref(handle), device)
    _call(driver, "cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
    return driver, context


def driver_library() -> Any:
    """Return the library of the driver.

    Raises:
        BackendUnavailableError: There is no driver.
    """
    return _open_driver(ctypes.CDLL)


def _open_driver(load: Load) -> Any:
    try:
        driver = load(_DRIVER)
    except OSError:
        raise BackendUnavailableError(f"this machine has no NVIDIA driver (no {_DRIVER})") from None
    _call(driver, "cuInit", 0)
    return driver


def _describe(driver: Any, index: int, driver_version: str, cuda: str) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(device), index)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=(_attribute(driver, device, _MAJOR), _attribute(driver, device, _MINOR)),
        memory_bytes=memory.value,
        driver=driver_version,
        cuda=cuda,
        multiprocessors=_attribute(driver, device, _MULTIPROCESSORS),
        index=index,
    )


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
        found = "reports none" if function == "cuInit" else "fails"
        raise BackendUnavailableError(f"the NVIDIA driver {found} ({function}: CUDA error {status}, {meaning})")


def _driver_version(load: Load) -> str:
    version = ctypes.create_string_buffer(96)
    try:
        management = load(_MANAGEMENT)
    except OSError:
        return ""
    if management.nvmlInit_v2() != 0 or management.nvmlSystemGetDriverVersion(version, len(version)) != 0:
        return ""
    return version.value.decode(errors="replace")
