"""CUDA graphs through cuda-bindings: a run is recorded once and then started with a single call to the driver.

pycuda has no graphs; both packages work on the same context and the same streams. Not measured: nothing here has run on
a GPU yet.
"""

from collections.abc import Callable
from typing import Any

from cascade_rt.engines.packages import import_package
from cascade_rt.errors import BackendUnavailableError, EngineError


class CudaGraph:
    """What was recorded on a stream, ready to be started on it again and again."""

    def __init__(self, driver: Any, graph: Any, stream: Any) -> None:
        self._driver = driver
        self._stream = stream
        self._executable = _checked(driver, "cuGraphInstantiate", graph, 0)

    def launch(self) -> None:
        """Start it.

        Raises:
            EngineError: The driver refuses.
        """
        _checked(self._driver, "cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free it."""
        _checked(self._driver, "cuGraphExecDestroy", self._executable)


class GraphRecorder:
    """Records what is put on a stream."""

    def __init__(self, driver: Any, stream_handle: int, refusals: tuple[type[Exception], ...]) -> None:
        self._driver = driver
        self._stream = driver.CUstream(stream_handle)
        self._refusals: tuple[type[Exception], ...] = (*refusals, EngineError)

    def record(self, enqueue: Callable[[], None]) -> CudaGraph | None:
        """Record what a function puts on the stream, without running it; None where it cannot be recorded.

        Args:
            enqueue: Puts work on the stream; has put the same there before, so that nothing is left to be set up.
        """
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            _checked(self._driver, "cuStreamBeginCapture", self._stream, mode)
        except EngineError:
            return None
        try:
            enqueue()
        except self._refusals:
            # Something cannot be recorded, which also voids the recording for what comes after; the run goes on without
            # a graph.
            recorded = False
        else:
            recorded = True
        finally:
            status, graph = self._driver.cuStreamEndCapture(self._stream)
        if not recorded or status != self._driver.CUresult.CUDA_SUCCESS:
            return None
        try:
            return CudaGraph(self._driver, graph, self._stream)
        except EngineError:
            return None
        finally:
            _checked(self._driver, "cuGraphDestroy", graph)


def open_recorder(stream_handle: int, refusals: tuple[type[Exception], ...]) -> GraphRecorder | None:
    """A recorder for a stream; None where cuda-bindings is not installed.

    Args:
        stream_handle: The stream.
        refusals: What those who put work on the stream raise where it cannot be recorded, besides EngineError.
    """
    try:
        driver = import_package("cuda.bindings.driver", backend="tensorrt", extra="gpu")
    except BackendUnavailableError:
        return None
    return GraphRecorder(driver, stream_handle, refusals)


def _checked(driver: Any, function: str, *arguments: object) -> Any:
    """Call the driver and return what it returns behind its status; EngineError where that is not success."""
    status, *results = getattr(driver, function)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise EngineError(f"{function} failed on the GPU ({status!r}); run it with `backend=onnxruntime`")
    return results[0] if results else None
