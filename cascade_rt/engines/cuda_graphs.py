"""CUDA graphs through cuda-bindings: a run is captured once and then launched with a single driver call.

pycuda does not support CUDA graphs. Both packages work on the same context and the same streams. Not measured: nothing
here has run on a GPU yet.
"""

from collections.abc import Callable
from typing import Any

from cascade_rt.common.packages import backend_named, import_package
from cascade_rt.errors import BackendUnavailableError, EngineError


class CudaGraph:
    """Work captured from a stream, which can be launched on that stream repeatedly."""

    def __init__(self, driver: Any, graph: Any, stream: Any) -> None:
        self._driver = driver
        self._stream = stream
        self._executable = _checked(driver, "cuGraphInstantiate", graph, 0)

    def launch(self) -> None:
        """Launch the graph.

        Raises:
            EngineError: The driver returns an error.
        """
        _checked(self._driver, "cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free the graph."""
        _checked(self._driver, "cuGraphExecDestroy", self._executable)


class GraphRecorder:
    """Captures the work that is enqueued on a stream."""

    def __init__(self, driver: Any, stream_handle: int, refusals: tuple[type[Exception], ...]) -> None:
        self._driver = driver
        self._stream = driver.CUstream(stream_handle)
        self._refusals: tuple[type[Exception], ...] = (*refusals, EngineError)

    def record(self, enqueue: Callable[[], None]) -> CudaGraph | None:
        """Capture what a function enqueues on the stream, without running it. Return None if it cannot be captured.

        Args:
            enqueue: Enqueues the work. It must have run once before, so that no lazy setup is left to do.
        """
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            _checked(self._driver, "cuStreamBeginCapture", self._stream, mode)
        except EngineError:
            return None
        try:
            enqueue()
        except self._refusals:
            # An operation that cannot be captured invalidates the whole capture. The run continues without a graph.
            recorded = False
        else:
            recorded = True
        finally:
            status, graph = self._driver.cuStreamEndCapture(self._stream)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            return None
        try:
            return CudaGraph(self._driver, graph, self._stream) if recorded else None
        except EngineError:
            return None
        finally:
            _checked(self._driver, "cuGraphDestroy", graph)


def open_recorder(stream_handle: int, refusals: tuple[type[Exception], ...]) -> GraphRecorder | None:
    """Return a recorder for a stream, or None if cuda-bindings is not installed.

    Args:
        stream_handle: Handle of the stream.
        refusals: Exceptions, besides EngineError, that enqueueing raises if the work cannot be captured.
    """
    try:
        driver = import_package("cuda.bindings.driver", needed_by=backend_named("tensorrt"), extra="gpu")
    except BackendUnavailableError:
        return None
    return GraphRecorder(driver, stream_handle, refusals)


def _checked(driver: Any, function: str, *arguments: object) -> Any:
    """Call the driver and return the result that follows its status. Raise EngineError if the call failed."""
    status, *results = getattr(driver, function)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise EngineError(f"{function} failed on the GPU ({status!r}); run it with `backend=onnxruntime`")
    return results[0] if results else None
