"""Stand-ins for tensorrt, pycuda and cuda-bindings that compute with numpy, so that what calls them runs without a GPU.

A plan stands for a function of numpy arrays. They show that memory is freed, contexts are left, shape profiles are
chosen and graphs are replayed, and that nobody reads what was not waited for: what is put on a stream is done only when
somebody waits for it. What the real libraries do, they cannot show.
"""

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


class Stream:
    """Work that is done, in order, when somebody waits for it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.pending: list[Operation] = []

    def synchronize(self) -> None:
        while self.pending:
            self.pending.pop(0)()


class FakeGpu:
    """A GPU: its memory, what is being recorded, and what it refuses."""

    def __init__(self, plans: Mapping[bytes, Network] | None = None) -> None:
        self.plans = plans or {b"a plan": doubling()}
        self.memory: dict[int, np.ndarray] = {}
        self.contexts_in_use = 0
        self.devices: list[int] = []
        self.recording: list[Operation] | None = None
        self.executions = 0
        self.replays = 0
        self.graphs_alive = 0
        self.allocations = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.profiles_run: list[int] = []
        self.refuses_profiles = False
        self.refuses_to_run = False
        self.refuses_to_record = False
        self.voids_recordings = False
        self.error: type[Exception] = RuntimeError
        self.memory_is_full = False
        self.streams: dict[int, Stream] = {}
        self._next_address = 4096

    def install(self, monkeypatch: pytest.MonkeyPatch, *, graphs: bool = True) -> None:
        """Put the three packages in the place of the real ones."""
        # TensorRT has one log for the life of a process, but each stand-in is a package of its own.
        monkeypatch.setattr(tensorrt_session, "tensorrt_log", cache(tensorrt_log.__wrapped__))
        modules = {"tensorrt": self._tensorrt(), "pycuda": ModuleType("pycuda"), "pycuda.driver": self.pycuda_driver()}
        if graphs:
            modules |= {"cuda": ModuleType("cuda"), "cuda.bindings": ModuleType("cuda.bindings")}
            modules["cuda.bindings.driver"] = self._bindings()
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def do(self, operation: Operation, stream: Stream) -> None:
        """Put an operation on a stream, or record it."""
        assert self.contexts_in_use == 1, "work on the GPU needs its context, once"
        if self.voids_recordings and self.recording is not None:
            raise self.error("cuMemcpyHtoDAsync failed: operation failed due to a previous error during capture")
        (stream.pending if self.recording is None else self.recording).append(operation)

    def new_stream(self, _: object = None) -> Stream:
        """A stream with a handle of its own."""
        stream = Stream(77 + len(self.streams))
        self.streams[stream.handle] = stream
        return stream

    def at(self, address: int, size: int) -> np.ndarray:
        """The bytes from an address on, which must lie in one piece of memory."""
        start = max(each for each in self.memory if each <= address)
        assert address - start + size <= len(self.memory[start]), "outside of what was allocated"
        return self.memory[start][address - start : address - start + size]

    def pycuda_driver(self) -> ModuleType:
        """A stand-in for `pycuda.driver`."""
        gpu, driver = self, ModuleType("pycuda.driver")

        class Error(Exception):
            pass

        gpu.error = Error

        class Allocation:
            def __init__(self, size: int) -> None:
                assert size > 0, "pycuda refuses to allocate nothing"
                if gpu.memory_is_full:
                    raise Error("cuMemAlloc failed: out of memory")
                gpu.allocations += 1
                self.address = gpu._next_address
                gpu._next_address += size + 4096
                gpu.memory[self.address] = np.full(size, 0xFF, np.uint8)

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                for stream in gpu.streams.values():
                    stream.synchronize()
                del gpu.memory[self.address]

        class Context:
            def push(self) -> None:
                gpu.contexts_in_use += 1

            def pop(self) -> None:
                gpu.contexts_in_use -= 1

        def device(index: int) -> SimpleNamespace:
            gpu.devices.append(index)
            return SimpleNamespace(retain_primary_context=Context)

        class Event:
            def record(self, stream: Stream) -> None:
                self.stream = stream

            def synchronize(self) -> None:
                self.stream.synchronize()

            def time_till(self, _: object) -> float:
                return 2.0

        class Memcpy2D:
            src_y = src_x_in_bytes = src_pitch = dst_y = dst_x_in_bytes = dst_pitch = height = width_in_bytes = 0

            def set_src_device(self, address: int) -> None:
                self.source = address

            def set_dst_device(self, address: int) -> None:
                self.target = address

            def __call__(self, stream: Stream) -> None:
                gpu.do(self.copy, stream)

            def copy(self) -> None:
                assert self.width_in_bytes <= min(self.src_pitch, self.dst_pitch)
                source = self.source + self.src_y * self.src_pitch + self.src_x_in_bytes
                target = self.target + self.dst_y * self.dst_pitch + self.dst_x_in_bytes
                for row in range(self.height):
                    line = gpu.at(source + row * self.src_pitch, self.width_in_bytes)
                    gpu.at(target + row * self.dst_pitch, self.width_in_bytes)[:] = line

        def to_device(device: Allocation, host: np.ndarray, stream: Stream) -> None:
            def copy() -> None:
                gpu.bytes_in += host.nbytes
                np.copyto(gpu.memory[int(device)], host.reshape(-1).view(np.uint8))

            gpu.do(copy, stream)

        def to_host(host: np.ndarray, device: Allocation, stream: Stream) -> None:
            def copy() -> None:
                gpu.bytes_out += host.nbytes
                np.copyto(host.reshape(-1).view(np.uint8), gpu.memory[int(device)])

            gpu.do(copy, stream)

        def within_device(target: int, source: int, size: int, stream: Stream) -> None:
            gpu.do(lambda: np.copyto(gpu.at(target, size), gpu.at(source, size)), stream)

        def fill(target: int, value: int, count: int, stream: Stream) -> None:
            gpu.do(lambda: gpu.at(target, 4 * count).view(np.uint32).fill(value), stream)

        class MaskKernel:
            """What the PTX of `device_masks` says that it computes."""

            def prepare(self, types: str) -> None:
                assert types == "PPIfff"

            def prepared_async_call(
                self,
                blocks: tuple[int, int],
                threads: tuple[int, int, int],
                stream: Stream,
                source: int,
                target: int,
                count: int,
                threshold: float,
                lowest: float,
                highest: float,
            ) -> None:
                def compute() -> None:
                    values = gpu.at(source, 4 * count).view(np.float32)
                    probability = (values >= lowest) & (values <= highest)
                    gpu.at(target, count)[:] = np.where(probability, values >= threshold, 2)

                assert blocks[0] * threads[0] >= count, "not every pixel has a thread"
                gpu.do(compute, stream)

        driver.Error, driver.Event, driver.mem_alloc = Error, Event, Allocation
        driver.module_from_buffer = lambda _: SimpleNamespace(get_function={"as_mask": MaskKernel()}.__getitem__)
        driver.init = lambda: None
        driver.Device = device
        driver.Stream = gpu.new_stream
        driver.pagelocked_empty = np.empty
        driver.memcpy_htod_async, driver.memcpy_dtoh_async = to_device, to_host
        driver.memcpy_dtod_async, driver.memset_d32_async, driver.Memcpy2D = within_device, fill, Memcpy2D
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
                assert stream in gpu.streams
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
                assert self.working_memory == working_memory(self.profile)
                if gpu.refuses_to_run or (gpu.refuses_to_record and gpu.recording is not None):
                    self.log.log(1, "no kernel for this\nand more")
                    return False
                gpu.executions += gpu.recording is None
                gpu.do(self.compute, gpu.streams[stream])
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
            return (901, None) if gpu.voids_recordings else (0, recorded)

        def instantiate(graph: list[Operation], _: int) -> tuple[int, list[Operation]]:
            gpu.graphs_alive += 1
            return (0, graph)

        def launch(graph: list[Operation], stream: int) -> tuple[int]:
            gpu.replays += 1
            gpu.streams[stream].pending.extend(graph)
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
