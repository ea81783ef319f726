"""ONNX Runtime sessions that run on the requested device, or are rejected.

By default ONNX Runtime silently falls back to the CPU for every node that a GPU provider does not support, and for the
whole graph if the provider does not start. At best it writes a log message. This module checks which provider is really
in use and where every node was placed.

`session.disable_cpu_ep_fallback` is not used, because the CUDA provider itself places shape arithmetic on the CPU,
where it belongs. With that option, any graph with shape arithmetic, such as stage 2, is rejected
(microsoft/onnxruntime#17930).
"""

import contextlib
import ctypes
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from cascade_rt.common.packages import backend_named, import_package, pip_install
from cascade_rt.common.processors import available_cpus
from cascade_rt.engines.base import Array
from cascade_rt.engines.out_of_memory import named_out_of_memory
from cascade_rt.errors import BackendUnavailableError, BundleError

_FATAL_ONLY, _WARNINGS = 4, 2
"""Log severities of ONNX Runtime. Its default is to log warnings."""

# fmt: off
_LENGTH_OPERATORS = frozenset({
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Max", "Min", "Mul",
    "Range", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where",
})
# fmt: on
"""Operators that may run on the CPU beside a GPU, as shape arithmetic. Work on images also needs other operators."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An ONNX Runtime execution provider for NVIDIA GPUs, and its configuration."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    helpers: tuple["Provider", ...] = ()
    """Fallback providers on the same GPU, for nodes that this provider does not support."""

    def on_device(self, device: int) -> "Provider":
        """Return the same, with its helpers, on the GPU of this number among those that this process sees."""
        helpers = tuple(helper.on_device(device) for helper in self.helpers)
        return replace(self, options={**self.options, "device_id": str(device)}, helpers=helpers)


CUDA = Provider(
    "CUDAExecutionProvider",
    {
        "device_id": "0",
        # The default, EXHAUSTIVE, benchmarks all algorithms again for every new crop size, and its choice may vary.
        "cudnn_conv_algo_search": "HEURISTIC",
        # TF32 keeps only 10 mantissa bits, and the parity measured at export is that of full float32.
        "use_tf32": "0",
    },
)
CUDA_FOR_HALF: Mapping[str, str] = {"prefer_nhwc": "1"}
"""Further options of `CUDA` for half precision: Tensor Cores take images with the channels last.

Without it, cuDNN transposes around every convolution. Left out in float32, which uses no Tensor Cores. Not measured.
"""
TENSORRT = Provider("TensorrtExecutionProvider", {"device_id": "0"}, helpers=(CUDA,))

_TENSORRT_LIBRARY = re.compile(rb"(?:lib)?nvinfer(?:_|\.so\.)([0-9]+)")
"""The library of TensorRT, as named in the file of the provider."""


def open_cpu_session(graph: bytes, what: str, threads: int | None = None) -> Any:
    """Open a graph on the CPU.

    Args:
        graph: The ONNX graph.
        what: Name of the graph, for error messages.
        threads: Number of threads per run, or None for one per processor.

    Raises:
        BackendUnavailableError: The package is not installed or cannot be loaded.
        EngineOutOfMemoryError: Memory ran out.
        BundleError: The graph cannot be read.
    """
    onnxruntime = import_package("onnxruntime", needed_by=backend_named("onnxruntime"), extra="cpu")
    options = _options(onnxruntime)
    if threads is not None:
        options.intra_op_num_threads = threads
    # Threads that spin while waiting for work take processor time from concurrent reading and writing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A memory pattern is kept for every input shape, and there are many crop sizes.
    options.enable_mem_pattern = False
    refusals = library_errors()
    try:
        with named_out_of_memory(what, "onnxruntime", *refusals):
            return onnxruntime.InferenceSession(
                graph, sess_options=options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
    except refusals as error:
        raise BundleError(f"{what}: ONNX Runtime cannot read the graph; export the bundle again") from error


@cache
def library_errors() -> tuple[type[Exception], ...]:
    """Return all exception types that ONNX Runtime raises, because which one a bad graph causes varies.

    ONNX Runtime must be installed.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception))
    # C++ exceptions without a Python class become RuntimeError. Names that are not valid text cause ValueError.
    return (*own, RuntimeError, ValueError)


def open_gpu_session(graph: bytes, what: str, provider: Provider, backend: str) -> Any:
    """Open a graph entirely on the GPU, except for shape arithmetic.

    Args:
        graph: The ONNX graph.
        what: Name of the graph, for error messages.
        provider: The execution provider to run it on.
        backend: Name of the backend, for error messages.

    Raises:
        BackendUnavailableError: The package is missing or was built without the provider, or the provider does not
            start or leaves nodes to the CPU.
        BundleError: The graph cannot be read.
    """
    onnxruntime = import_package("onnxruntime", needed_by=backend_named(backend), extra="gpu")
    if provider.name not in onnxruntime.get_available_providers():
        raise BackendUnavailableError(
            f"backend {backend!r} needs {provider.name}, which the installed ONNX Runtime was built without; "
            f"run: pip uninstall -y onnxruntime onnxruntime-gpu && {pip_install('gpu')}"
        )
    if provider.name == TENSORRT.name:
        _load_tensorrt(Path(onnxruntime.__file__).parent / "capi", backend)
    complaint = _load_cuda_libraries(onnxruntime)
    session = _start(onnxruntime, graph, what, provider, complaint)
    check_placement(session, what, backend)
    return session


def check_placement(session: Any, what: str, backend: str) -> None:
    """Raise BackendUnavailableError if a session placed work on images on the CPU.

    Args:
        session: A session created with `session.record_ep_graph_assignment_info` enabled.
        what: Name of the graph, for the error message.
        backend: Name of the backend, for the error message.
    """
    on_cpu = {
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == "CPUExecutionProvider"
        for node in part.get_nodes()
    }
    misplaced = sorted(on_cpu - _LENGTH_OPERATORS)
    if misplaced:
        raise BackendUnavailableError(
            f"backend {backend!r} would compute {', '.join(misplaced)} of {what} on the CPU; "
            f"run: {pip_install('gpu', '--upgrade')}"
        )


def run_bound(
    session: Any, feeds: Mapping[str, Array], output_names: Sequence[str], kind: str, device: int = 0
) -> list[Array]:
    """Run a session with inputs and outputs bound to device memory, then copy the outputs to the host.

    Args:
        session: The session.
        feeds: Inputs by name, C-contiguous.
        output_names: Names of the outputs to return.
        kind: `cuda` or `cpu`.
        device: Number of the GPU that the session runs on.
    """
    import onnxruntime

    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, kind, device))
    for name in output_names:
        binding.bind_output(name, kind, device)
    # Unlike `session.run`, this never retries on the CPU.
    session.run_with_iobinding(binding)
    outputs: list[Array] = binding.copy_outputs_to_cpu()
    return outputs


def _start(onnxruntime: Any, graph: bytes, what: str, provider: Provider, complaint: str) -> Any:
    """Open a session. Raise BackendUnavailableError if the provider does not start, however that shows."""
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    providers = [(each.name, dict(each.options)) for each in (provider, *provider.helpers)]
    options = _options(onnxruntime)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        session = onnxruntime.InferenceSession(graph, sess_options=options, providers=providers, enable_fallback=0)
    except (errors.InvalidProtobuf, errors.InvalidGraph) as error:
        raise BundleError(f"{what}: ONNX Runtime cannot read the graph; export the bundle again") from error
    # C++ exceptions without a Python class, such as those for missing libraries, become RuntimeError.
    except (errors.Fail, errors.EPFail, errors.RuntimeException, errors.NotImplemented, RuntimeError) as error:
        raise _not_started(provider, complaint or str(error).partition("\n")[0]) from error
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    if session.get_providers()[0] != provider.name:
        raise _not_started(provider, complaint or "it fell back to the CPU without giving a reason")
    return session


def _not_started(provider: Provider, reason: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"ONNX Runtime cannot start {provider.name} ({reason}); run: {pip_install('gpu', '--upgrade')}"
    )


def _load_tensorrt(folder: Path, backend: str) -> None:
    """Load the TensorRT that the provider in a folder was linked with. The installed one may be of another version.

    Raises:
        BackendUnavailableError: It cannot be loaded.
    """
    installed = "no TensorRT"
    with contextlib.suppress(BackendUnavailableError):  # the libraries may be there without the package
        # The package loads its libraries when it is imported.
        package = import_package("tensorrt", needed_by=backend_named(backend), extra="tensorrt")
        installed = f"TensorRT {package.__version__}"
    files = [path.read_bytes() for path in folder.glob("*onnxruntime_providers_tensorrt.*")]
    linked = _TENSORRT_LIBRARY.search(b"".join(files))
    if linked is None:
        return
    library, version = linked[0].decode(), linked[1].decode()
    try:
        ctypes.CDLL(library)
    except OSError:
        raise BackendUnavailableError(
            f"{TENSORRT.name} of the installed ONNX Runtime is built for TensorRT {version}, and {library} cannot be "
            f"loaded ({installed} is installed); backend 'tensorrt' does not need it"
        ) from None


def _load_cuda_libraries(onnxruntime: Any) -> str:
    """Load CUDA and cuDNN from their pip packages, where ONNX Runtime does not look by itself.

    Returns:
        The first line of what ONNX Runtime printed about a failure, or empty.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    return said.getvalue().partition("\n")[0].strip()


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    # Errors are raised anyway, and the log prints names from the graph unescaped, which could inject terminal codes.
    options.log_severity_level = _FATAL_ONLY
    return options
