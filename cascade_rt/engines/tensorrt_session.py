"""A TensorRT engine in GPU memory, run through pycuda.

Written for TensorRT 10.13 to 11.4 and pycuda 2026.1. Not measured: nothing here has run on a GPU yet.

TensorRT answers with False or None where other libraries raise, so every answer is checked, and its last logged error
goes into ours. The primary context of the GPU is used, which PyTorch and ONNX Runtime share; the one that
`pycuda.autoinit` makes would be a second one beside it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade_rt.engines.base import Array
from cascade_rt.engines.cuda_graphs import CudaGraph, GraphRecorder, open_recorder
from cascade_rt.engines.nvidia import require_gpu
from cascade_rt.engines.packages import import_package
from cascade_rt.engines.recently_used import RecentlyUsed
from cascade_rt.engines.tensorrt_api import TensorRTLog, tensorrt_log
from cascade_rt.errors import BackendUnavailableError, EngineError, OutsideProfileError

SHAPES_KEPT = 8
"""Shapes whose buffers and CUDA graphs are kept; crops come in few sizes, and those of a scan recur."""

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default one, nor the default one for it."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes of one input that an engine was built for, both ends included."""

    smallest: Shape
    largest: Shape

    def check(self, what: str, shape: Shape) -> None:
        """Raise OutsideProfileError, with the allowed range, where a shape lies outside.

        Args:
            what: The input, for the message.
            shape: Its shape.
        """
        inside = len(shape) == len(self.smallest) and all(
            low <= length <= high for low, length, high in zip(self.smallest, shape, self.largest, strict=True)
        )
        if not inside:
            raise OutsideProfileError(
                f"{what} must have a shape from {list(self.smallest)} to {list(self.largest)} on this TensorRT engine, "
                f"got {list(shape)}; build the engine for it, or take another with --backend"
            )


class TensorRtSession:
    """A deserialised engine, ready for any shapes inside its profile.

    Each shape has an execution context of its own: a CUDA graph is void once its context has seen another shape. All
    contexts share one workspace: they run one after another on one stream.
    """

    def __init__(self, plan: bytes, *, shapes_kept: int = SHAPES_KEPT) -> None:
        """Load a plan.

        Args:
            plan: The serialised engine. It is executable code: see `Plan`.
            shapes_kept: Shapes whose buffers and graphs are kept.

        Raises:
            BackendUnavailableError: No GPU, a package missing, or TensorRT refuses the plan.
        """
        require_gpu("tensorrt")
        self._tensorrt = import_package("tensorrt", backend="tensorrt", extra="gpu")
        self._cuda = import_package("pycuda.driver", backend="tensorrt", extra="gpu")
        self._cuda.init()
        self._context = self._cuda.Device(0).retain_primary_context()
        self._slots: RecentlyUsed[tuple[tuple[str, Shape], ...], _ShapeSlot] = RecentlyUsed(shapes_kept)
        self.device_seconds = 0.0
        """How long the GPU was busy with the last run, copies included."""
        with self._on_gpu():
            self._gpu: _Loaded | None = _load(self._tensorrt, self._cuda, plan)

    @property
    def version(self) -> str:
        """Version of TensorRT."""
        return str(self._tensorrt.__version__)

    @property
    def records_graphs(self) -> bool:
        """Whether runs are recorded as CUDA graphs."""
        return self._gpu is not None and self._gpu.recorder is not None

    @property
    def inputs(self) -> Mapping[str, ShapeRange]:
        """The shapes that each input may have."""
        return self._loaded().inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self._loaded().outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; they belong to the caller.

        Args:
            inputs: An array for each input, of the type that the engine takes.

        Raises:
            OutsideProfileError: A shape the engine was not built for.
            BackendUnavailableError: The GPU failed, or its memory is full.
            EngineError: TensorRT refuses to run.
        """
        loaded = self._loaded()
        for name, allowed in loaded.inputs.items():
            allowed.check(f"input {name!r}", inputs[name].shape)
        shapes = {name: inputs[name].shape for name in loaded.inputs}
        with self._on_gpu():
            slot = self._slots.get(tuple(shapes.items()), lambda: _ShapeSlot(loaded, shapes))
            outputs = slot.run(inputs)
            self.device_seconds = slot.device_seconds
        return outputs

    def close(self) -> None:
        """Free all that is on the GPU; may be called twice."""
        if self._gpu is None:
            return
        with self._on_gpu():
            self._slots.clear()
            self._gpu.workspace.free()
            self._gpu = None

    def _loaded(self) -> "_Loaded":
        if self._gpu is None:
            raise RuntimeError("the TensorRT session is closed")
        return self._gpu

    @contextmanager
    def _on_gpu(self) -> Iterator[None]:
        """Work in the GPU's primary context, on whichever thread this is, and leave the thread as it was."""
        self._context.push()
        try:
            yield
        except self._cuda.Error as error:
            raise BackendUnavailableError(
                f"backend 'tensorrt' failed on the GPU ({error}); free its memory, or take another with --backend"
            ) from error
        finally:
            self._context.pop()


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """An engine and what its runs share."""

    tensorrt: Any
    cuda: Any
    log: TensorRTLog
    runtime: Any
    engine: Any
    stream: Any
    workspace: Any
    recorder: GraphRecorder | None
    inputs: Mapping[str, ShapeRange]
    outputs: tuple[str, ...]

    def done(self, answer: Any, what: str) -> Any:
        """Return what TensorRT answered; EngineError where that is False or None."""
        if answer is None or answer is False:
            raise EngineError(f"TensorRT cannot {what} ({self.log.last_error})")
        return answer


@dataclass(frozen=True, slots=True, eq=False)
class _Buffer:
    """One tensor on both sides of the bus."""

    host: Array
    """Page-locked, so that copies run beside other work."""
    device: Any


class _ShapeSlot:
    """All that inputs of one combination of shapes need."""

    def __init__(self, gpu: _Loaded, shapes: Mapping[str, Shape]) -> None:
        self._gpu = gpu
        self._context = _new_context(gpu)
        for name, shape in shapes.items():
            gpu.done(self._context.set_input_shape(name, shape), f"take {name!r} in shape {list(shape)}")
        self._buffers = {name: self._new_buffer(name) for name in (*gpu.inputs, *gpu.outputs)}
        for name, buffer in self._buffers.items():
            gpu.done(self._context.set_tensor_address(name, int(buffer.device)), f"bind {name!r}")
        self._start, self._stop = gpu.cuda.Event(), gpu.cuda.Event()
        self._graph: CudaGraph | None = None
        self._runs = 0
        self.device_seconds = 0.0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, compute, copy out."""
        for name in self._gpu.inputs:
            np.copyto(self._buffers[name].host, inputs[name], casting="no")
        self._start.record(self._gpu.stream)
        self._launch()
        self._stop.record(self._gpu.stream)
        self._stop.synchronize()
        self.device_seconds = self._start.time_till(self._stop) / 1000
        return {name: self._buffers[name].host.copy() for name in self._gpu.outputs}

    def close(self) -> None:
        """Free graph, context and buffers."""
        if self._graph is not None:
            self._graph.close()
        self._graph = self._context = None
        for buffer in self._buffers.values():
            buffer.device.free()
        self._buffers = {}

    def _launch(self) -> None:
        # The first run of a shape sets up what cannot be recorded, and a shape that never recurs needs no graph.
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
            cuda.memcpy_htod_async(self._buffers[name].device, self._buffers[name].host, stream)
        self._gpu.done(self._context.execute_async_v3(stream.handle), "run")
        for name in self._gpu.outputs:
            cuda.memcpy_dtoh_async(self._buffers[name].host, self._buffers[name].device, stream)

    def _new_buffer(self, name: str) -> _Buffer:
        shape = tuple(self._context.get_tensor_shape(name))
        dtype = self._gpu.tensorrt.nptype(self._gpu.engine.get_tensor_dtype(name))
        host = self._gpu.cuda.pagelocked_empty(shape, dtype)
        return _Buffer(host, self._gpu.cuda.mem_alloc(host.nbytes))


def _load(tensorrt: Any, cuda: Any, plan: bytes) -> _Loaded:
    """Deserialise a plan; BackendUnavailableError where TensorRT refuses it."""
    log = tensorrt_log("tensorrt")
    log.clear()
    runtime = tensorrt.Runtime(log.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendUnavailableError(
            f"TensorRT {tensorrt.__version__} refuses the engine ({log.last_error}), which was built for another "
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
        # pycuda refuses to allocate nothing, which small engines need.
        workspace=cuda.mem_alloc(max(1, engine.device_memory_size_v2)),
        recorder=open_recorder(stream.handle),
        inputs={name: _shape_range(engine, name) for name in names if takes[name]},
        outputs=tuple(name for name in names if not takes[name]),
    )


def _shape_range(engine: Any, name: str) -> ShapeRange:
    fixed = tuple(engine.get_tensor_shape(name))
    if -1 not in fixed:
        return ShapeRange(fixed, fixed)
    smallest, _, largest = engine.get_tensor_profile_shape(name, 0)
    return ShapeRange(tuple(smallest), tuple(largest))


def _new_context(gpu: _Loaded) -> Any:
    strategy = gpu.tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
    context = gpu.done(gpu.engine.create_execution_context(strategy), "make an execution context")
    context.set_device_memory(int(gpu.workspace), gpu.engine.device_memory_size_v2)
    return context
