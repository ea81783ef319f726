"""Stand-ins for tensorrt, pycuda and cuda-bindings that compute with numpy, so that what calls them runs without a GPU.

A plan stands for a function of numpy arrays. They show that memory is freed, contexts are left, shape profiles are
chosen and graphs are replayed; what the real libraries do, they cannot show.
"""

import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from cascade_rt.engines import tensorrt_session
from cascade_rt.engines.tensorrt_api import tensorrt_log

Operation = Callable[[], None]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """What an engine computes of its one input, and the smallest and largest shape of each of its profiles."""

    source: str
    compute: Callable[[np.ndarray], dict[str, np.ndarray]]
    profiles: tuple[tuple[Shape, Shape], ...]

    def outputs(self, shape: Shape) -> dict[str, np.ndarray]:
        """Outputs of the shapes that go with an input shape."""
        return self.compute(np.zeros(shape, np.float32))

    @property
    def names(self) -> tuple[str, ...]:
        return (self.source, *self.outputs(self.profiles[0][0]))


USUAL, SINGLE = ((1, 1, 2, 2), (4, 1, 8, 8)), ((1, 1, 2, 2), (1, 1, 16, 16))


def doubling(source: str = "image", target: str = "doubled", profiles: tuple = (USUAL, SINGLE)) -> Network:
    """An image in, twice the image out."""
    return Network(source, lambda image: {target: 2 * image}, profiles)


class FakeGpu:
    """A GPU: its memory, what is being recorded, and what it refuses."""

    def __init__(self, plans: Mapping[bytes, Network] | None = None) -> None:
        self.plans = plans or {b"a plan": doubling()}
        self.memory: dict[int, np.ndarray] = {}
        self.contexts_in_use = 0
        self.recording: list[Operation] | None = None
        self.executions = 0
        self.replays = 0
        self.graphs_alive = 0
        self.profiles_run: list[int] = []
        self.refuses_profiles = False
        self.refuses_to_run = False
        self.refuses_to_record = False
        self.memory_is_full = False
        self._addresses = itertools.count(4096, 4096)

    def install(self, monkeypatch: pytest.MonkeyPatch, *, graphs: bool = True) -> None:
        """Put the three packages in the place of the real ones."""
        # TensorRT has one log for the life of a process, but each stand-in is a package of its own.
        monkeypatch.setattr(tensorrt_session, "tensorrt_log", cache(tensorrt_log.__wrapped__))
        modules = {"tensorrt": self._tensorrt(), "pycuda": ModuleType("pycuda"), "pycuda.driver": self._pycuda()}
        if graphs:
            modules |= {"cuda": ModuleType("cuda"), "cuda.bindings": ModuleType("cuda.bindings")}
            modules["cuda.bindings.driver"] = self._bindings()
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def do(self, operation: Operation) -> None:
        """Run an operation now, or record it."""
        assert self.contexts_in_use == 1, "work on the GPU needs its context, once"
        if self.recording is None:
            operation()
        else:
            self.recording.append(operation)

    def _pycuda(self) -> ModuleType:
        gpu, driver = self, ModuleType("pycuda.driver")

        class Error(Exception):
            pass

        class Allocation:
            def __init__(self, size: int) -> None:
                assert size > 0, "pycuda refuses to allocate nothing"
                if gpu.memory_is_full:
                    raise Error("cuMemAlloc failed: out of memory")
                self.address = next(gpu._addresses)
                gpu.memory[self.address] = np.full(size, 0xFF, np.uint8)

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                del gpu.memory[self.address]

        class Context:
            def push(self) -> None:
                gpu.contexts_in_use += 1

            def pop(self) -> None:
                gpu.contexts_in_use -= 1

        class Event:
            def record(self, _: object) -> None:
                pass

            def synchronize(self) -> None:
                pass

            def time_till(self, _: object) -> float:
                return 2.0

        def to_device(device: Allocation, host: np.ndarray, _: object) -> None:
            gpu.do(lambda: np.copyto(gpu.memory[int(device)], host.reshape(-1).view(np.uint8)))

        def to_host(host: np.ndarray, device: Allocation, _: object) -> None:
            gpu.do(lambda: np.copyto(host.reshape(-1).view(np.uint8), gpu.memory[int(device)]))

        driver.Error, driver.Event, driver.mem_alloc = Error, Event, Allocation
        driver.init = lambda: None
        driver.Device = lambda _: SimpleNamespace(retain_primary_context=Context)
        driver.Stream = lambda _: SimpleNamespace(handle=77, synchronize=lambda: None)
        driver.pagelocked_empty = np.empty
        driver.memcpy_htod_async, driver.memcpy_dtoh_async = to_device, to_host
        return driver

    def _tensorrt(self) -> ModuleType:
        gpu, tensorrt = self, ModuleType("tensorrt")

        class Logger:
            Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

        class Execution:
            def __init__(self, network: Network, log: Logger) -> None:
                self.network = network
                self.log = log
                self.profile: int | None = None
                self.working_memory = -1
                self.shape: Shape = ()
                self.addresses: dict[str, int] = {}

            def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
                assert stream == 77
                self.profile = profile
                return not gpu.refuses_profiles

            def set_device_memory(self, address: int, size: int) -> None:
                assert len(gpu.memory[address]) >= size
                self.working_memory = size

            def set_input_shape(self, _: str, shape: Shape) -> bool:
                assert self.profile is not None, "which shapes are allowed depends on the profile"
                self.shape = shape
                smallest, largest = self.network.profiles[self.profile]
                return all(low <= length <= high for low, length, high in zip(smallest, shape, largest, strict=True))

            def get_tensor_shape(self, name: str) -> Shape:
                return self.shape if name == self.network.source else self.network.outputs(self.shape)[name].shape

            def set_tensor_address(self, name: str, address: int) -> bool:
                self.addresses[name] = address
                return True

            def execute_async_v3(self, stream: int) -> bool:
                assert stream == 77
                assert self.working_memory == working_memory(self.profile)
                if gpu.refuses_to_run or (gpu.refuses_to_record and gpu.recording is not None):
                    self.log.log(1, "no kernel for this\nand more")
                    return False
                gpu.executions += gpu.recording is None
                gpu.do(self.compute)
                return True

            def compute(self) -> None:
                gpu.profiles_run.append(self.profile)
                image = gpu.memory[self.addresses[self.network.source]].view(np.float32).reshape(self.shape)
                for name, array in self.network.compute(image).items():
                    np.copyto(gpu.memory[self.addresses[name]].view(np.float32), array.reshape(-1))

        def working_memory(profile: int) -> int:
            return 1000 * profile

        def engine(network: Network, log: Logger) -> SimpleNamespace:
            return SimpleNamespace(
                num_io_tensors=len(network.names),
                num_optimization_profiles=len(network.profiles),
                get_device_memory_size_for_profile_v2=working_memory,
                get_tensor_name=lambda index: network.names[index],
                get_tensor_mode=lambda name: "in" if name == network.source else "out",
                get_tensor_dtype=lambda _: np.float32,
                get_tensor_shape=lambda _: (-1, 1, -1, -1),
                get_tensor_profile_shape=lambda _, index: [
                    network.profiles[index][0],
                    network.profiles[index][0],
                    network.profiles[index][1],
                ],
                create_execution_context=lambda _: Execution(network, log),
            )

        class Runtime:
            def __init__(self, log: Logger) -> None:
                self.log = log

            def deserialize_cuda_engine(self, plan: bytes) -> SimpleNamespace | None:
                if plan in gpu.plans:
                    return engine(gpu.plans[plan], self.log)
                self.log.log(1, "version tag does not match")
                return None

        tensorrt.__version__ = "11.4"
        tensorrt.ILogger, tensorrt.Runtime, tensorrt.nptype = Logger, Runtime, np.dtype
        tensorrt.TensorIOMode = SimpleNamespace(INPUT="in")
        tensorrt.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
        return tensorrt

    def _bindings(self) -> ModuleType:
        gpu, driver = self, ModuleType("cuda.bindings.driver")

        def begin(*_: object) -> tuple[int]:
            gpu.recording = []
            return (0,)

        def end(_: object) -> tuple[int, list[Operation]]:
            recorded, gpu.recording = gpu.recording, None
            return (0, recorded)

        def instantiate(graph: list[Operation], _: int) -> tuple[int, list[Operation]]:
            gpu.graphs_alive += 1
            return (0, graph)

        def launch(graph: list[Operation], _: object) -> tuple[int]:
            gpu.replays += 1
            for operation in graph:
                operation()
            return (0,)

        def destroy(_: object) -> tuple[int]:
            gpu.graphs_alive -= 1
            return (0,)

        driver.CUresult = SimpleNamespace(CUDA_SUCCESS=0)
        driver.CUstream = int
        driver.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
        driver.cuStreamBeginCapture, driver.cuStreamEndCapture = begin, end
        driver.cuGraphInstantiate, driver.cuGraphLaunch, driver.cuGraphExecDestroy = instantiate, launch, destroy
        driver.cuGraphDestroy = lambda _: (0,)
        return driver
