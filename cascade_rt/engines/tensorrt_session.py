"""A TensorRT engine in GPU memory, run through pycuda.

Written for TensorRT 10.13 to 11.4 and pycuda 2026.1. Not measured: nothing here has run on a GPU yet.

TensorRT returns False or None where other libraries raise, so every return value is checked, and our error messages
include its last logged error. The primary context of the GPU is used, which is shared with PyTorch and ONNX Runtime.
`pycuda.autoinit` would create a second context.
"""

import logging
import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from cascade_rt.common.packages import backend_named, import_package
from cascade_rt.engines.base import Array
from cascade_rt.engines.cuda_context import releaser
from cascade_rt.engines.cuda_graphs import CudaGraph, GraphRecorder, open_recorder
from cascade_rt.engines.device_images import DeviceBatch
from cascade_rt.engines.device_masks import MaskKernel
from cascade_rt.engines.lru_cache import LruCache
from cascade_rt.engines.nvidia import require_gpu
from cascade_rt.engines.out_of_memory import is_out_of_memory
from cascade_rt.engines.shape_profiles import lies_between
from cascade_rt.engines.tensorrt_api import ICudaEngine, IExecutionContext, Runtime, TensorRTLog, tensorrt_log
from cascade_rt.errors import BackendUnavailableError, EngineError, EngineOutOfMemoryError, OutsideProfileError

SHAPES_KEPT = 8
"""Number of shapes whose buffers and CUDA graphs are cached. Crops come in few sizes, which recur within a scan."""

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: no implicit synchronization with the default stream, in either direction."""

_NOTHING: Mapping[str, DeviceBatch] = MappingProxyType({})

Shape = tuple[int, ...]
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The range of shapes of one input that an engine was built for, both ends included."""

    smallest: Shape
    largest: Shape

    def takes(self, shape: Shape) -> bool:
        """Return whether a shape lies in the range."""
        return lies_between(self.smallest, shape, self.largest)


Profile = Mapping[str, ShapeRange]
"""The shape range of each input, valid in combination."""


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> int:
    """Return the index of the first profile that accepts the shapes of all inputs.

    Raises:
        OutsideProfileError: No profile accepts them. The message lists the ranges of all profiles.
    """
    for index, profile in enumerate(profiles):
        if all(profile[name].takes(shape) for name, shape in shapes.items()):
            return index
    ranges = ", or ".join(
        " and ".join(f"{name!r} from {list(each.smallest)} to {list(each.largest)}" for name, each in profile.items())
        for profile in profiles
    )
    given = " and ".join(f"{name!r} in shape {list(shape)}" for name, shape in shapes.items())
    raise OutsideProfileError(
        f"this TensorRT engine accepts {ranges}, got {given}; build it for that, or choose another `backend`"
    )


class TensorRtSession:
    """A deserialized engine, ready for any shapes inside one of its profiles.

    Each combination of shapes has its own execution context, because a CUDA graph becomes invalid once its context has
    seen another shape. So does each choice of tensors that stay on the GPU, because a graph includes the copies to and
    from the host. All contexts of a profile share one workspace, because they run one after another on one stream.
    """

    def __init__(self, plan: bytes, *, device: int = 0, shapes_kept: int = SHAPES_KEPT) -> None:
        """Load a plan.

        Args:
            plan: The serialized engine. It is executable code: see `Plan`.
            device: Number of the GPU among those that this process sees.
            shapes_kept: Number of shapes whose buffers and graphs are cached.

        Raises:
            BackendUnavailableError: There is no GPU, a package is missing, or TensorRT rejects the plan.
        """
        require_gpu("tensorrt", device)
        self._tensorrt = import_package("tensorrt", needed_by=backend_named("tensorrt"), extra="tensorrt")
        self.cuda: Any = import_package("pycuda.driver", needed_by=backend_named("tensorrt"), extra="tensorrt")
        """The module `pycuda.driver`."""
        self.cuda.init()
        self._context = self.cuda.Device(device).retain_primary_context()
        self._held = _Held(self.cuda, self._context, LruCache(shapes_kept))
        self._close = weakref.finalize(self, self._held.close)
        self.device_seconds = 0.0
        """GPU time of the last run in seconds, including copies."""
        try:
            with self.on_gpu():
                self._held.loaded = _load(self._tensorrt, self.cuda, plan)
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> str:
        """Version of TensorRT."""
        return str(self._tensorrt.__version__)

    @property
    def records_graphs(self) -> bool:
        """Whether runs are captured as CUDA graphs."""
        return self._held.loaded is not None and self._held.loaded.recorder is not None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self._loaded().inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self._loaded().outputs

    @property
    def stream(self) -> Any:
        """The CUDA stream for all work of this session."""
        return self._loaded().stream

    def mask_kernel(self) -> MaskKernel:
        """Return the kernel that makes masks, which is loaded at the first call."""
        loaded = self._loaded()
        if loaded.mask_kernel is None:
            loaded.mask_kernel = self.with_room(lambda: MaskKernel(self.cuda))
        return loaded.mask_kernel

    def largest_batch(self, shapes: Mapping[str, Shape]) -> int:
        """Return the largest batch size for images of a given size.

        Args:
            shapes: The shape `[batch, ...]` of each input. The batch size is ignored.

        Raises:
            OutsideProfileError: No profile accepts even a single such image.
        """
        profiles = self._loaded().profiles
        index = choose_profile(profiles, {name: (1, *shape[1:]) for name, shape in shapes.items()})
        return min(profiles[index][name].largest[0] for name in shapes)

    def run(
        self, inputs: Mapping[str, Array | DeviceBatch], kept: Mapping[str, DeviceBatch] = _NOTHING
    ) -> dict[str, Array]:
        """Compute all outputs. All GPU work is finished when this method returns.

        Args:
            inputs: For each input, an array of the type that the engine expects, or images already on the GPU.
            kept: Destinations of the outputs that stay on the GPU, by name.

        Returns:
            All other outputs. They belong to the caller.

        Raises:
            OutsideProfileError: The engine was not built for one of the shapes.
            EngineOutOfMemoryError: The memory of the GPU is full, even without the buffers of other shapes.
            BackendUnavailableError: The GPU failed.
            EngineError: TensorRT fails to run the engine.
        """
        return self.with_room(lambda: self._run(inputs, kept))

    def with_room(self, work: Callable[[], Result]) -> Result:
        """Do work on the GPU. If its memory is full, free what is kept for shapes and do the work once more.

        Args:
            work: Called with the GPU's context current. What it has done before it fails must not matter.

        Raises:
            The same errors as `on_gpu`.
        """
        try:
            with self.on_gpu():
                return work()
        except EngineOutOfMemoryError as error:
            _log.info("%s; freeing the buffers of all image sizes and trying once more", error)
        self.forget_shapes()
        with self.on_gpu():
            return work()

    def _run(self, inputs: Mapping[str, Array | DeviceBatch], kept: Mapping[str, DeviceBatch]) -> dict[str, Array]:
        loaded = self._loaded()
        shapes = {name: inputs[name].shape for name in loaded.inputs}
        profile = choose_profile(loaded.profiles, shapes)
        on_gpu = frozenset(kept) | {name for name, given in inputs.items() if isinstance(given, DeviceBatch)}
        key = (tuple(shapes.items()), on_gpu)
        slot = self._held.slots.get(key, lambda: _ShapeSlot(loaded, profile, shapes, on_gpu))
        outputs = slot.run(inputs, kept)
        self.device_seconds = slot.device_seconds
        return outputs

    def forget_shapes(self) -> None:
        """Free the buffers, graphs and workspaces of all shapes. They are made again when they are needed."""
        with self.on_gpu():
            self._held.slots.clear()
            self._loaded().workspaces.close()

    def close(self) -> None:
        """Free all GPU memory and release the GPU's context. May be called twice.

        This also happens when the session is garbage collected, and when Python exits.
        """
        self._close()

    def _loaded(self) -> "_Loaded":
        if self._held.loaded is None:
            raise _closed()
        return self._held.loaded

    @contextmanager
    def on_gpu(self) -> Iterator[None]:
        """Make the GPU's primary context current on the calling thread, and restore the previous one at the end.

        Raises:
            EngineOutOfMemoryError: The memory of the GPU is full.
            BackendUnavailableError: Anything else inside the block failed on the GPU.
            RuntimeError: The session is closed.
        """
        if not self._close.alive:
            raise _closed()
        with self._held.on_gpu():
            yield


def _closed() -> RuntimeError:
    return RuntimeError("the TensorRT session is closed")


class _Held:
    """What a session holds on the GPU. It does not refer to the session, so that it can outlive it and be freed."""

    def __init__(self, cuda: Any, context: Any, slots: "LruCache[object, _ShapeSlot]") -> None:
        self._cuda = cuda
        self._context = context
        self._release = releaser(cuda, context)
        self._process = os.getpid()
        self.slots = slots
        self.loaded: _Loaded | None = None

    @contextmanager
    def on_gpu(self) -> Iterator[None]:
        """See `TensorRtSession.on_gpu`."""
        self._context.push()
        try:
            yield
        except self._cuda.Error as error:
            kind = EngineOutOfMemoryError if is_out_of_memory(error) else BackendUnavailableError
            raise kind(
                f"backend 'tensorrt' failed on the GPU ({error}); free its memory, or choose another `backend`"
            ) from error
        finally:
            self._context.pop()

    def close(self) -> None:
        """Free everything and release the context. Called once."""
        if os.getpid() != self._process:
            return  # a forked process has no GPU
        try:
            with self.on_gpu():
                self.slots.clear()
                if self.loaded is not None:
                    self.loaded.close()
        finally:
            self.loaded = None
            self._release()


class _Workspaces:
    """The workspaces of an engine's layers: one for each profile, allocated when the profile is first used.

    A machine that never sees a slice of 2048 x 2048 thus does not need memory for one.
    """

    def __init__(self, cuda: Any, engine: ICudaEngine) -> None:
        self._cuda = cuda
        self._engine = engine
        self._memory: dict[int, Any] = {}

    def give(self, context: IExecutionContext, profile: int) -> None:
        """Give a context, whose profile is already set, the workspace of that profile."""
        size = self._engine.get_device_memory_size_for_profile_v2(profile)
        if profile not in self._memory:
            # pycuda refuses to allocate 0 bytes, but small engines need no workspace.
            self._memory[profile] = self._cuda.mem_alloc(max(1, size))
        context.set_device_memory(int(self._memory[profile]), size)

    def close(self) -> None:
        """Free all workspaces."""
        while self._memory:
            self._memory.popitem()[1].free()


@dataclass(slots=True, eq=False)
class _Loaded:
    """An engine and the resources shared by its runs."""

    tensorrt: Any
    cuda: Any
    log: TensorRTLog
    runtime: Runtime
    engine: ICudaEngine
    stream: Any
    workspaces: _Workspaces
    recorder: GraphRecorder | None
    profiles: tuple[Profile, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    mask_kernel: MaskKernel | None = None

    def done(self, answer: Any, what: str) -> Any:
        """Return the value that TensorRT returned. Raise EngineError if it is False or None.

        Raises EngineOutOfMemoryError instead if TensorRT's last logged error says that memory ran out.
        """
        if answer is None or answer is False:
            if is_out_of_memory(RuntimeError(self.log.last_error)):
                raise EngineOutOfMemoryError(f"TensorRT cannot {what}, its memory is full; choose another `backend`")
            raise EngineError(f"TensorRT cannot {what} ({self.log.last_error})")
        return answer

    def close(self) -> None:
        """Free everything now, while its context is current, even if the traceback of an error still refers to this."""
        self.workspaces.close()
        if self.mask_kernel is not None:
            self.mask_kernel.close()
        del self.recorder, self.stream, self.engine, self.runtime


class _ShapeSlot:
    """The context, buffers and CUDA graph for one combination of shapes and of tensors that stay on the GPU."""

    def __init__(self, gpu: _Loaded, profile: int, shapes: Mapping[str, Shape], on_gpu: frozenset[str]) -> None:
        self._gpu = gpu
        self._context = _new_context(gpu, profile)
        self._host: dict[str, Array] = {}
        self._device: dict[str, Any] = {}
        self._start, self._stop = gpu.cuda.Event(), gpu.cuda.Event()
        self._graph: CudaGraph | None = None
        self._runs = 0
        self.device_seconds = 0.0
        try:
            self._allocate(shapes, on_gpu)
        except BaseException:
            self.close()
            raise

    def _allocate(self, shapes: Mapping[str, Shape], on_gpu: frozenset[str]) -> None:
        """Set the shapes of the inputs, and allocate memory for all tensors."""
        gpu = self._gpu
        for name, shape in shapes.items():
            gpu.done(self._context.set_input_shape(name, shape), f"accept {name!r} in shape {list(shape)}")
        for name in (*gpu.inputs, *gpu.outputs):
            shape = tuple(self._context.get_tensor_shape(name))
            dtype = np.dtype(gpu.tensorrt.nptype(gpu.engine.get_tensor_dtype(name)))
            self._device[name] = gpu.cuda.mem_alloc(math.prod(shape) * dtype.itemsize)
            gpu.done(self._context.set_tensor_address(name, int(self._device[name])), f"bind {name!r}")
            if name not in on_gpu:
                # Page-locked, so that copies are asynchronous.
                self._host[name] = gpu.cuda.pagelocked_empty(shape, dtype)

    def run(self, inputs: Mapping[str, Array | DeviceBatch], kept: Mapping[str, DeviceBatch]) -> dict[str, Array]:
        """Copy in, compute, copy out."""
        cuda, stream = self._gpu.cuda, self._gpu.stream
        for name, given in inputs.items():
            if not isinstance(given, DeviceBatch):
                np.copyto(self._host[name], given, casting="no")
        self._start.record(stream)
        # The addresses of images differ in each run, so these copies are not part of the graph.
        for name, given in inputs.items():
            if isinstance(given, DeviceBatch):
                given.gather(cuda, int(self._device[name]), stream)
        self._launch()
        for name, images in kept.items():
            images.scatter(cuda, int(self._device[name]), stream)
        self._stop.record(stream)
        self._stop.synchronize()
        self.device_seconds = self._start.time_till(self._stop) / 1000
        return {name: self._host[name].copy() for name in self._gpu.outputs if name in self._host}

    def close(self) -> None:
        """Free the graph, the context and the buffers."""
        if self._graph is not None:
            self._graph.close()
        self._graph = None
        # Not left to the end of the last reference, because the traceback of an error may refer to this slot.
        del self._context, self._start, self._stop, self._gpu
        while self._device:
            self._device.popitem()[1].free()
        self._host = {}

    def _launch(self) -> None:
        # The first run does setup that cannot be captured, and a shape that never recurs does not need a graph.
        if self._runs == 1 and self._gpu.recorder is not None:
            self._graph = self._gpu.recorder.record(self._enqueue)
        self._runs += 1
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        cuda, stream = self._gpu.cuda, self._gpu.stream
        for name in self._gpu.inputs:
            if name in self._host:
                cuda.memcpy_htod_async(self._device[name], self._host[name], stream)
        self._gpu.done(self._context.execute_async_v3(stream.handle), "run")
        for name in self._gpu.outputs:
            if name in self._host:
                cuda.memcpy_dtoh_async(self._host[name], self._device[name], stream)


def _load(tensorrt: Any, cuda: Any, plan: bytes) -> _Loaded:
    """Deserialize a plan. Raise BackendUnavailableError if TensorRT rejects it."""
    log = tensorrt_log("tensorrt")
    log.clear()
    runtime = tensorrt.Runtime(log.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendUnavailableError(
            f"TensorRT {tensorrt.__version__} rejects the engine ({log.last_error}), which was built for another "
            "version or GPU, or is damaged; build it again"
        )
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    takes = {name: engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names}
    stream = cuda.Stream(_NON_BLOCKING)
    return _Loaded(
        tensorrt=tensorrt,
        cuda=cuda,
        log=log,
        runtime=runtime,
        engine=engine,
        stream=stream,
        workspaces=_Workspaces(cuda, engine),
        recorder=open_recorder(stream.handle, (cuda.Error,)),
        profiles=tuple(
            {name: _shape_range(engine, name, index) for name in names if takes[name]}
            for index in range(engine.num_optimization_profiles)
        ),
        inputs=tuple(name for name in names if takes[name]),
        outputs=tuple(name for name in names if not takes[name]),
    )


def _shape_range(engine: ICudaEngine, name: str, profile: int) -> ShapeRange:
    fixed = tuple(engine.get_tensor_shape(name))
    if -1 not in fixed:
        return ShapeRange(fixed, fixed)
    smallest, _, largest = engine.get_tensor_profile_shape(name, profile)
    return ShapeRange(tuple(smallest), tuple(largest))


def _new_context(gpu: _Loaded, profile: int) -> IExecutionContext:
    """Return a context with a profile selected and a workspace assigned."""
    strategy = gpu.tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
    context: IExecutionContext = gpu.done(gpu.engine.create_execution_context(strategy), "create an execution context")
    chosen = context.set_optimization_profile_async(profile, gpu.stream.handle)
    gpu.done(chosen, f"choose its shape profile {profile}")
    gpu.stream.synchronize()
    gpu.workspaces.give(context, profile)
    return context
