"""Sessions of ONNX Runtime that compute where they were told to, or are refused.

Left to itself ONNX Runtime computes on the CPU whatever a GPU provider cannot take, all of it where the provider does
not start, and says so in a log at best. Here the provider that is really in use is checked, and where every node is.

`session.disable_cpu_ep_fallback` is not used for that: the CUDA provider itself puts arithmetic on the lengths of axes
on the CPU, where it belongs, and with that option a graph that has any, such as stage 2, is refused
(microsoft/onnxruntime#17930).
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cascade_rt.common.packages import pip_install
from cascade_rt.common.processors import available_cpus
from cascade_rt.engines.base import Array
from cascade_rt.engines.out_of_memory import named_out_of_memory
from cascade_rt.engines.packages import import_package
from cascade_rt.errors import BackendUnavailableError, BundleError

_FATAL_ONLY, _WARNINGS = 4, 2
"""Severities of ONNX Runtime's log; warnings is where it stands by default."""

# fmt: off
_LENGTH_OPERATORS = frozenset({
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Max", "Min", "Mul",
    "Range", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where",
})
# fmt: on
"""Operators that may run on the CPU beside a GPU: they work on lengths there. What works on images has others too."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider of ONNX Runtime that computes on an NVIDIA GPU, and how it is set up."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    helpers: tuple["Provider", ...] = ()
    """Providers on the same GPU for nodes that this one does not take."""
    package: str | None = None
    """A package whose import loads the shared libraries that the provider needs."""


CUDA = Provider(
    "CUDAExecutionProvider",
    {
        "device_id": "0",
        # EXHAUSTIVE, the default, tries all algorithms again for every new crop size and may choose differently.
        "cudnn_conv_algo_search": "HEURISTIC",
        # TF32 keeps 10 bits of a float32; the parity that export measured is that of float32.
        "use_tf32": "0",
    },
)
TENSORRT = Provider("TensorrtExecutionProvider", {"device_id": "0"}, helpers=(CUDA,), package="tensorrt")


def open_cpu_session(graph: bytes, what: str, threads: int | None = None) -> Any:
    """Open a graph on the CPU.

    Args:
        graph: The ONNX graph.
        what: Which graph it is, for messages.
        threads: How many threads compute a run; none: one on each processor.

    Raises:
        BackendUnavailableError: The package is not installed or cannot be loaded, or memory is short.
        BundleError: The graph cannot be read.
    """
    onnxruntime = import_package("onnxruntime", backend="onnxruntime", extra="cpu")
    options = _options(onnxruntime)
    if threads is not None:
        options.intra_op_num_threads = threads
    # Threads that wait for work by spinning take the processors from whatever reads and writes beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan of memory for each size of crop is memory for each size of crop.
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
    """All that ONNX Runtime raises, once it is imported; which of it a bad graph gets depends on the graph."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception))
    # RuntimeError is what becomes of C++ exceptions that it has no class for; ValueError, of names that are no text.
    return (*own, RuntimeError, ValueError)


def open_gpu_session(graph: bytes, what: str, provider: Provider, backend: str) -> Any:
    """Open a graph on the GPU, all of it but arithmetic on lengths.

    Args:
        graph: The ONNX graph.
        what: Which graph it is, for messages.
        provider: What computes.
        backend: The backend that asks, for messages.

    Raises:
        BackendUnavailableError: The package is missing, was built without the provider, the provider does not start, or
            it leaves nodes to the CPU.
        BundleError: The graph cannot be read.
    """
    onnxruntime = import_package("onnxruntime", backend=backend, extra="gpu")
    if provider.name not in onnxruntime.get_available_providers():
        raise BackendUnavailableError(
            f"backend {backend!r} needs {provider.name}, which the installed ONNX Runtime was built without; "
            f"run: pip uninstall -y onnxruntime onnxruntime-gpu && {pip_install('gpu')}"
        )
    if provider.package is not None:
        import_package(provider.package, backend=backend, extra="gpu")
    complaint = _load_cuda_libraries(onnxruntime)
    session = _start(onnxruntime, graph, what, provider, complaint)
    check_placement(session, what, backend)
    return session


def check_placement(session: Any, what: str, backend: str) -> None:
    """Raise BackendUnavailableError where a session left work on images to the CPU.

    Args:
        session: A session with `session.record_ep_graph_assignment_info` on.
        what: Which graph it runs, for the message.
        backend: The backend, for the message.
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


def run_bound(session: Any, feeds: Mapping[str, Array], output_names: Sequence[str], device: str) -> list[Array]:
    """Run a session with inputs and outputs bound to memory of a device; only then are outputs copied to the host.

    Args:
        session: The session.
        feeds: Its inputs, C-contiguous.
        output_names: The outputs to return.
        device: `cuda` or `cpu`.
    """
    import onnxruntime

    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
    for name in output_names:
        binding.bind_output(name, device, 0)
    # Unlike `session.run`, this never tries again on the CPU.
    session.run_with_iobinding(binding)
    outputs: list[Array] = binding.copy_outputs_to_cpu()
    return outputs


def _start(onnxruntime: Any, graph: bytes, what: str, provider: Provider, complaint: str) -> Any:
    """Open a session; BackendUnavailableError where the provider does not start, whichever way that shows."""
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    providers = [(each.name, dict(each.options)) for each in (provider, *provider.helpers)]
    options = _options(onnxruntime)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        session = onnxruntime.InferenceSession(graph, sess_options=options, providers=providers, enable_fallback=0)
    except (errors.InvalidProtobuf, errors.InvalidGraph) as error:
        raise BundleError(f"{what}: ONNX Runtime cannot read the graph; export the bundle again") from error
    # RuntimeError is what becomes of C++ exceptions that ONNX Runtime has no class for, such as libraries not found.
    except (errors.Fail, errors.EPFail, errors.RuntimeException, errors.NotImplemented, RuntimeError) as error:
        raise _not_started(provider, complaint or str(error).partition("\n")[0]) from error
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    if session.get_providers()[0] != provider.name:
        raise _not_started(provider, complaint or "it fell back to the CPU without a reason")
    return session


def _not_started(provider: Provider, reason: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"ONNX Runtime cannot start {provider.name} ({reason}); run: {pip_install('gpu', '--upgrade')}"
    )


def _load_cuda_libraries(onnxruntime: Any) -> str:
    """Load CUDA and cuDNN from their packages, where ONNX Runtime does not look by itself; returns its complaint."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    return said.getvalue().partition("\n")[0].strip()


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    # Errors are raised; its log has names out of the graph as they are, for a terminal to obey.
    options.log_severity_level = _FATAL_ONLY
    return options
