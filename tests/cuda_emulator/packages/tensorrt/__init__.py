"""A TensorRT 11 whose engines compute with ONNX Runtime on the CPU, on the streams of the emulated CUDA driver.

It has the part of the interface that `cascade_rt.engines.tensorrt_api` lists. A plan holds the ONNX graph. `behaviour`
is what tests tell it to do and what it tells them.
"""

from enum import IntEnum

from ._behaviour import behaviour
from ._builder import Builder, INetworkDefinition, OnnxParser
from ._flags import (
    BuilderFlag,
    ExecutionContextAllocationStrategy,
    LayerInformationFormat,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    TensorIOMode,
)
from ._runtime import ICudaEngine, IExecutionContext, Runtime

__version__ = "11.4.0.106"
__all__ = [
    "Builder",
    "BuilderFlag",
    "ExecutionContextAllocationStrategy",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "INetworkDefinition",
    "IProgressMonitor",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
    "behaviour",
    "nptype",
]


class ILogger:
    """The base class of loggers."""

    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class IProgressMonitor:
    """The base class of progress monitors."""


def nptype(kind: type) -> type:
    """Return the type of numpy of a type of TensorRT; here they are the same."""
    return kind
