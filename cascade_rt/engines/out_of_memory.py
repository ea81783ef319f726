"""Distinguish out-of-memory errors from other failures of an engine. What follows from one is in `fallbacks.py`."""

from collections.abc import Iterator
from contextlib import contextmanager

from cascade_rt.errors import EngineOutOfMemoryError

_SAID_BY_LIBRARIES = (
    "out of memory",  # CUDA, PyTorch, TensorRT
    "failed to allocate memory",  # ONNX Runtime's arenas
    "can't alloc",  # PyTorch and OpenVINO on the CPU
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",  # C++ itself, as ONNX Runtime and OpenVINO pass it on
    "bad allocation",
    "bad array new length",
    "can't start new thread",  # a thread needs memory for its stack
    "resource temporarily unavailable",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a library's error means out of memory. Most libraries have no class for it, only a message."""
    return isinstance(error, MemoryError) or any(said in str(error).lower() for said in _SAID_BY_LIBRARIES)


@contextmanager
def named_out_of_memory(what: str, backend: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn out-of-memory errors inside the block into `EngineOutOfMemoryError`. Other exceptions pass unchanged.

    Args:
        what: The stage being run, or the graph being opened, for the error message.
        backend: Name of the backend, for the error message.
        kinds: Exception types, besides `MemoryError`, that the library raises.

    Raises:
        EngineOutOfMemoryError: Memory ran out.
    """
    caught: tuple[type[Exception], ...] = (MemoryError, *kinds)
    try:
        yield
    except caught as error:
        if not is_out_of_memory(error):
            raise
        raise EngineOutOfMemoryError(
            f"{what} on {backend} ran out of memory; free some, or use a smaller scan or another `backend`"
        ) from error
