"""Telling a lack of memory from all else that an engine can fail with."""

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
    """Whether an error of a library means that memory was short; most have no class for it, only a sentence."""
    return isinstance(error, MemoryError) or any(said in str(error).lower() for said in _SAID_BY_LIBRARIES)


@contextmanager
def named_out_of_memory(what: str, backend: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a lack of memory inside into an error that says so; all else passes through as it is.

    Args:
        what: The stage that runs, or the graph that is opened, for the message.
        backend: What computes, for the message.
        kinds: What the library raises, besides `MemoryError`.

    Raises:
        EngineOutOfMemoryError: Memory was short.
    """
    caught: tuple[type[Exception], ...] = (MemoryError, *kinds)
    try:
        yield
    except caught as error:
        if not is_out_of_memory(error):
            raise
        raise EngineOutOfMemoryError(
            f"{what} on {backend} ran out of memory; free some, or take a smaller scan or another `backend`"
        ) from error
