"""The part of the TensorRT API used here: its packages, its classes and members, and its log.

`tensorrt` from 10.13, including 11, and `tensorrt_rtx` share one Python interface. The protocols below list its classes
and all members that we use, so that mypy finds a name we did not list, and a test finds a listed name that one of the
packages lacks.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, Protocol, cast

from cascade_rt.common.packages import backend_named, import_package, pip_install
from cascade_rt.errors import BackendUnavailableError

Flavour = Literal["tensorrt", "tensorrt_rtx"]
"""TensorRT, or TensorRT-RTX, which builds for GeForce and RTX cards without needing a GPU."""

_EXTRAS: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
# The oldest versions this was written for. Older ones may work.
_OLDEST: dict[Flavour, tuple[int, int]] = {"tensorrt": (10, 13), "tensorrt_rtx": (1, 7)}

Shape = Sequence[int]


class ITensor(Protocol):
    """An input, output or intermediate value of a network."""

    name: str


class INetworkDefinition(Protocol):
    """A network before it is compiled."""

    def get_flag(self, flag: Any) -> bool: ...


class ParserError(Protocol):
    """The parser's error about a node."""

    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    """Fills a network from an ONNX graph. The network refers to the parser's weights, so the parser must outlive it."""

    @property
    def num_errors(self) -> int: ...
    def parse(self, model: bytes) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class IHostMemory(Protocol):
    """Memory owned by TensorRT. `bytes` copies it."""

    @property
    def nbytes(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...


class ITimingCache(Protocol):
    """A builder's measurements of kernels."""

    def serialize(self) -> IHostMemory | None: ...


class IOptimizationProfile(Protocol):
    """A range of input shapes that an engine is built for. It is falsy if inconsistent."""

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None: ...


class IBuilderConfig(Protocol):
    """Options for compiling a network."""

    builder_optimization_level: int
    profiling_verbosity: Any
    progress_monitor: Any

    def clear_flag(self, flag: Any) -> None: ...
    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> ITimingCache | None: ...


class IBuilderConfigRtx(IBuilderConfig, Protocol):
    """Additional members of the config in TensorRT-RTX: the GPUs to build for."""

    num_compute_capabilities: int

    def set_compute_capability(self, new_compute_capability: Any, index: int) -> bool: ...


class Builder(Protocol):
    """Compiles networks."""

    def create_network(self, flags: int) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig | None: ...
    def create_optimization_profile(self) -> IOptimizationProfile | None: ...
    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None: ...


class EngineInspector(Protocol):
    """Describes the layers of an engine."""

    def get_engine_information(self, format: Any) -> str: ...


class IExecutionContext(Protocol):
    """The state for running a compiled network: a shape profile, shapes, addresses and a workspace."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def set_input_shape(self, name: str, shape: Shape) -> bool: ...
    def get_tensor_shape(self, name: str) -> Shape: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    """A compiled network on a GPU."""

    @property
    def num_io_tensors(self) -> int: ...
    @property
    def num_optimization_profiles(self) -> int: ...
    def create_engine_inspector(self) -> EngineInspector | None: ...
    def create_execution_context(self, strategy: Any) -> IExecutionContext | None: ...
    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def get_tensor_shape(self, name: str) -> Shape: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Shape]: ...


class Runtime(Protocol):
    """Loads compiled networks."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...


class BuilderFlag(Protocol):
    """Flags of the config."""

    TF32: Any


class NetworkDefinitionCreationFlag(Protocol):
    """Flags of the network."""

    STRONGLY_TYPED: Any


class MemoryPoolType(Protocol):
    """Kinds of memory that can be limited."""

    WORKSPACE: Any


class ProfilingVerbosity(Protocol):
    """How much detail an engine reports about itself."""

    DETAILED: Any


class LayerInformationFormat(Protocol):
    """Format of that report."""

    JSON: Any


class ExecutionContextAllocationStrategy(Protocol):
    """Who allocates the workspace of an execution context."""

    USER_MANAGED: Any


class TensorIOMode(Protocol):
    """Whether a tensor is an input or an output."""

    INPUT: Any


class TensorRT(Protocol):
    """The package itself."""

    __version__: str
    Builder: Callable[[Any], Builder]
    OnnxParser: Callable[[INetworkDefinition, Any], OnnxParser]
    Runtime: Callable[[Any], Runtime]
    ILogger: Any
    IProgressMonitor: Any
    BuilderFlag: BuilderFlag
    NetworkDefinitionCreationFlag: NetworkDefinitionCreationFlag
    MemoryPoolType: MemoryPoolType
    ProfilingVerbosity: ProfilingVerbosity
    LayerInformationFormat: LayerInformationFormat
    ExecutionContextAllocationStrategy: ExecutionContextAllocationStrategy
    TensorIOMode: TensorIOMode


class TensorRTRtx(TensorRT, Protocol):
    """The package TensorRT-RTX, which identifies GPUs by compute capability."""

    ComputeCapability: Any


def import_tensorrt(flavour: Flavour) -> TensorRT:
    """Import TensorRT or TensorRT-RTX.

    Raises:
        BackendUnavailableError: The package is not installed, its libraries cannot be loaded, or it is too old.
    """
    try:
        package = cast(TensorRT, import_package(flavour, needed_by=backend_named(flavour), extra=_EXTRAS[flavour]))
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"backend {flavour!r} is installed but its libraries cannot be loaded ({error}); run: "
            f"{pip_install(_EXTRAS[flavour], '--force-reinstall')}"
        ) from error
    oldest = _OLDEST[flavour]
    if tuple(int(part) for part in package.__version__.split(".")[:2]) < oldest:
        raise BackendUnavailableError(
            f"backend {flavour!r} needs version {oldest[0]}.{oldest[1]} or later, "
            f"but {package.__version__} is installed; run: {pip_install(_EXTRAS[flavour], '--upgrade')}"
        )
    return package


class TensorRTLog:
    """Messages of TensorRT since the last `clear`: errors, and the layers of the engine it built last."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.errors: list[str] = []
        self.layers = ""

    def clear(self) -> None:
        """Discard all messages."""
        self.errors.clear()
        self.layers = ""

    @property
    def last_error(self) -> str:
        """The last error, as one line."""
        return " ".join(self.errors[-1].split()) if self.errors else "TensorRT gave no reason"

    def note(self, severity: int, message: str) -> None:
        """Record a message. Severities 0 and 1 are errors."""
        if severity <= _ERROR:
            self.errors.append(message)
        elif message.startswith(_LAYERS):
            self.layers = message


_ERROR = 1
_LAYERS = "Layers:\n"


@cache
def tensorrt_log(flavour: Flavour) -> TensorRTLog:
    """Return the log of a package, which all objects created with that package must share.

    TensorRT keeps the logger of the first object created and warns if it is given another, so one logger is used for
    the lifetime of the process.
    """
    base = import_tensorrt(flavour).ILogger

    class Logger(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.note(int(severity), message)

    log = TensorRTLog(Logger())
    return log
