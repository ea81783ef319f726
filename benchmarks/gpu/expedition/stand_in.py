"""A `tensorrt` whose engines compute with CuPy, so that our own code around TensorRT runs on a GPU without it.

It has the classes and members that `cascade_rt.engines.tensorrt_session` uses. All work goes on the stream that it is
given and allocates nothing, so it can be captured. Each engine is arithmetic that numpy repeats bit by bit.
"""

import ctypes
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol, Self

import numpy as np

from cascade_rt.common.tensors import STAGE_SPECS, Stage
from cascade_rt.engines.base import Array

Shape = tuple[int, ...]
Compute = Callable[[Any, Mapping[str, Any]], None]
"""Takes numpy or CuPy and the tensors of a stage by name; fills the outputs."""
WORKSPACE = 1 << 20


def _ramp(xp: Any, source: Any, target: Any, scale: float, offset: float) -> None:
    """Compute `clip(source * scale + offset, 0, 1)`, one rounding after another: no fused multiply-add, no memory."""
    xp.multiply(source, np.float32(scale), out=target)
    xp.add(target, np.float32(offset), out=target)
    xp.maximum(target, np.float32(0), out=target)
    xp.minimum(target, np.float32(1), out=target)


def compute_stage1(xp: Any, tensors: Mapping[str, Any]) -> None:
    """Call bright tissue pancreas."""
    _ramp(xp, tensors["hu"], tensors["salient"], 1 / 512, 0.5)
    _ramp(xp, tensors["hu"], tensors["organ_prob"], 1 / 64, -1.0)
    xp.max(tensors["organ_prob"], axis=(1, 3), out=tensors["row_max"])
    xp.max(tensors["organ_prob"], axis=(1, 2), out=tensors["col_max"])


def compute_stage2(xp: Any, tensors: Mapping[str, Any]) -> None:
    """Call the brightest of it tumor."""
    _ramp(xp, tensors["salient"], tensors["tumor_prob"], 8.0, -5.25)


COMPUTE: Mapping[Stage, Compute] = {"stage1": compute_stage1, "stage2": compute_stage2}


def on_host(stage: Stage, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What an engine computes, with numpy."""
    (source,) = inputs.values()
    outputs = {name: np.empty(shape, np.float32) for name, shape in output_shapes(stage, source.shape).items()}
    COMPUTE[stage](np, {**inputs, **outputs})
    return outputs


def output_shapes(stage: Stage, shape: Shape) -> dict[str, Shape]:
    """Shapes of the outputs that go with an input `[batch, 1, height, width]`."""
    lengths = dict(zip(("batch", "channel", "height", "width"), shape, strict=True))
    return {
        spec.name: tuple(lengths[axis] if isinstance(axis, str) else axis for axis in spec.shape)
        for spec in STAGE_SPECS[stage].outputs
    }


@dataclass(frozen=True, slots=True)
class StandInPlan:
    """What a plan of the stand-in says."""

    stage: Stage
    profiles: Sequence[Sequence[Sequence[int]]]
    """The smallest, the usual and the largest input shape of each profile."""
    poisoned: bool = False
    """Whether stage 1 returns NaN, as a broken engine does."""

    def to_bytes(self) -> bytes:
        """As a plan."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, plan: bytes) -> Self:
        """From a plan."""
        return cls(**json.loads(plan))


class Computer(Protocol):
    """Puts a computation on tensors in the memory of the GPU on a stream."""

    def enqueue(self, stream: int, compute: Compute, tensors: Mapping[str, tuple[int, Shape]]) -> None:
        """Enqueue it; tensors are addresses and shapes, float32."""
        ...


class CupyComputer:
    """With CuPy."""

    def __init__(self) -> None:
        """Import it.

        Raises:
            ImportError: It is not installed.
        """
        # Its own reductions allocate nothing, those of CUB do.
        os.environ["CUPY_ACCELERATORS"] = ""
        import cupy

        self._cupy: Any = cupy

    def enqueue(self, stream: int, compute: Compute, tensors: Mapping[str, tuple[int, Shape]]) -> None:
        """Launch its kernels on the stream."""
        with self._cupy.cuda.ExternalStream(stream):
            compute(self._cupy, {name: self._array(*tensor) for name, tensor in tensors.items()})

    def _array(self, address: int, shape: Shape) -> Any:
        size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
        memory = self._cupy.cuda.UnownedMemory(address, size, self, device_id=0)
        return self._cupy.ndarray(shape, np.float32, self._cupy.cuda.MemoryPointer(memory, 0))


class EmulatedComputer:
    """With numpy, on an emulated driver whose memory is the host's: a function of the host on the stream."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._driver.cuLaunchHostFunc.argtypes = [ctypes.c_void_p, self._type, ctypes.c_void_p]
        # Graphs call them again, as long as the process lives.
        self._kept: list[Any] = []

    def enqueue(self, stream: int, compute: Compute, tensors: Mapping[str, tuple[int, Shape]]) -> None:
        """Enqueue the function."""

        def work(_: object) -> None:
            pointers = {name: ctypes.cast(at, ctypes.POINTER(ctypes.c_float)) for name, (at, _) in tensors.items()}
            compute(np, {name: np.ctypeslib.as_array(pointers[name], shape) for name, (_, shape) in tensors.items()})

        self._kept.append(self._type(work))
        self._driver.cuLaunchHostFunc(stream, self._kept[-1], None)


@dataclass
class Counts:
    """What engines of the stand-in were asked for."""

    executions: int = 0
    """Calls of `execute_async_v3`; the replay of a graph is none."""
    contexts: int = 0


def stand_in_tensorrt(computer: Computer, counts: Counts) -> ModuleType:
    """Make a package that can stand in `sys.modules` in the place of `tensorrt`."""
    package: Any = ModuleType("tensorrt")

    class Logger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    class Runtime:
        def __init__(self, log: Logger) -> None:
            self.log = log

        def deserialize_cuda_engine(self, plan: bytes) -> Engine:
            return Engine(StandInPlan.from_bytes(plan), computer, counts)

    package.__version__ = "11.4.0.stand.in"
    package.ILogger, package.Runtime, package.nptype = Logger, Runtime, np.dtype
    package.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    package.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
    module: ModuleType = package
    return module


class Engine:
    """An engine of the stand-in; its members are TensorRT's."""

    def __init__(self, plan: StandInPlan, computer: Computer, counts: Counts) -> None:
        self.plan, self.computer, self.counts = plan, computer, counts
        self.source = STAGE_SPECS[plan.stage].inputs[0].name
        self.names = (self.source, *(spec.name for spec in STAGE_SPECS[plan.stage].outputs))
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = len(plan.profiles)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == self.source else "out"

    def get_tensor_dtype(self, _: str) -> type[np.float32]:
        return np.float32

    def get_tensor_shape(self, name: str) -> Shape:
        return (-1, 1, -1, -1) if name == self.source else tuple(output_shapes(self.plan.stage, (-1, 1, -1, -1))[name])

    def get_tensor_profile_shape(self, _: str, index: int) -> Sequence[Sequence[int]]:
        return self.plan.profiles[index]

    def get_device_memory_size_for_profile_v2(self, _: int) -> int:
        return WORKSPACE

    def create_execution_context(self, _: object) -> "Context":
        self.counts.contexts += 1
        return Context(self)


@dataclass
class Context:
    """An execution context of the stand-in; its members are TensorRT's."""

    engine: Engine
    profile: int = 0
    shape: Shape = ()
    addresses: dict[str, int] = field(default_factory=dict)

    def set_optimization_profile_async(self, profile_index: int, _: int) -> bool:
        self.profile = profile_index
        return True

    def set_device_memory(self, _: int, size: int) -> None:
        assert size == WORKSPACE

    def set_input_shape(self, _: str, shape: Shape) -> bool:
        self.shape = tuple(shape)
        smallest, _usual, largest = self.engine.plan.profiles[self.profile]
        return all(low <= length <= high for low, length, high in zip(smallest, shape, largest, strict=True))

    def get_tensor_shape(self, name: str) -> Shape:
        outputs = output_shapes(self.engine.plan.stage, self.shape)
        return self.shape if name == self.engine.source else outputs[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.engine.counts.executions += 1
        tensors = {name: (address, self.get_tensor_shape(name)) for name, address in self.addresses.items()}
        self.engine.computer.enqueue(int(stream_handle), self._compute, tensors)
        return True

    def _compute(self, xp: Any, tensors: Mapping[str, Any]) -> None:
        COMPUTE[self.engine.plan.stage](xp, tensors)
        if self.engine.plan.poisoned:
            last = tensors[self.engine.names[1]]
            xp.multiply(last, np.float32(np.nan), out=last)
