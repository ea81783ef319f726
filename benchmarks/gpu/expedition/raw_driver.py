"""The NVIDIA driver through cuda-bindings alone, each status checked."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.common.packages import import_package
from cascade_rt.errors import EngineError

_BUFFER, _BUFFER_SIZE, _END = 1, 2, 0
"""CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE and CU_LAUNCH_PARAM_END."""


class RawDriver:
    """Calls functions of the driver by their names, in the primary context of the first GPU."""

    def __init__(self) -> None:
        """Load the package and initialise the driver.

        Raises:
            BackendUnavailableError: cuda-bindings is not installed.
            EngineError: The driver refuses.
        """
        self.names: Any = import_package("cuda.bindings.driver", needed_by="this benchmark", extra="gpu")
        """The module `cuda.bindings.driver`."""
        self("cuInit", 0)
        self.device = self("cuDeviceGet", 0)

    def __call__(self, function: str, *arguments: object) -> Any:
        """Call a function; returns what follows its status.

        Raises:
            EngineError: The call failed.
        """
        status, result = self.ask(function, *arguments)
        if status != "CUDA_SUCCESS":
            raise EngineError(f"{function} failed on the GPU ({status})")
        return result

    def ask(self, function: str, *arguments: object) -> tuple[str, Any]:
        """Call a function; returns the name of its status, and what follows."""
        status, *results = getattr(self.names, function)(*arguments)
        return status.name, results[0] if len(results) == 1 else tuple(results)

    @contextmanager
    def primary_context(self) -> Iterator[Any]:
        """The primary context, current inside the block and released after it."""
        context = self("cuDevicePrimaryCtxRetain", self.device)
        self("cuCtxPushCurrent", context)
        try:
            yield context
        finally:
            self("cuCtxPopCurrent")
            self("cuDevicePrimaryCtxRelease", self.device)

    def memory(self, size: int) -> int:
        """Allocate bytes on the GPU; returns their address."""
        return int(self("cuMemAlloc", size))

    def page_locked(self, size: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """Allocate bytes of the host that can be copied asynchronously; returns their address and an array of them."""
        address = int(self("cuMemAllocHost", size))
        return address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def seconds(self, stream: Any, work: Any) -> float:
        """Seconds that the GPU takes for what a function puts on a stream."""
        start, stop = self("cuEventCreate", 0), self("cuEventCreate", 0)
        self("cuEventRecord", start, stream)
        work()
        self("cuEventRecord", stop, stream)
        self("cuStreamSynchronize", stream)
        milliseconds = self("cuEventElapsedTime", start, stop)
        return float(milliseconds) / 1000


class Arguments:
    """The arguments of a kernel, in one buffer as pycuda packs them. It has to live until the kernel is launched."""

    def __init__(self, *fields: Any) -> None:
        """Pack values of ctypes, each aligned to its own size."""
        packed = type("Packed", (ctypes.Structure,), {"_fields_": [(f"f{n}", type(f)) for n, f in enumerate(fields)]})
        self._values = packed(*fields)
        last = getattr(packed, f"f{len(fields) - 1}")
        self._size = ctypes.c_size_t(last.offset + last.size)
        self._extra = (ctypes.c_void_p * 5)(
            _BUFFER, ctypes.addressof(self._values), _BUFFER_SIZE, ctypes.addressof(self._size), _END
        )

    @property
    def extra(self) -> int:
        """What cuLaunchKernel takes as `extra`."""
        return ctypes.addressof(self._extra)
