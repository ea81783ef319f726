"""Parallel streams on a CPU: with a share of the processors each, threads wait for one another less."""

from cascade_rt.common.processors import available_cpus

_MOST = 4
"""The number of streams is limited because each one needs its own memory for activations."""


def count_streams(cpus: int) -> int:
    """Return the number of parallel streams: the largest divisor of `cpus` up to four, so that no processor is idle."""
    return max(streams for streams in range(1, _MOST + 1) if cpus % streams == 0)


def streams_here() -> int:
    """Return `count_streams` for the processors that this process may use."""
    return count_streams(available_cpus())


def share_out(count: int, streams: int) -> list[slice]:
    """Split a batch of at least one image into at most `streams` parts, in order."""
    most = -(-count // streams)
    return [slice(first, first + most) for first in range(0, count, most)]
