"""Images computed side by side on a CPU: with a part of the processors each, threads wait for one another less."""

from cascade_rt.common.processors import available_cpus

_MOST = 4
"""Each stream has memory of its own for the values inside the network."""


def count_streams(cpus: int) -> int:
    """How many images are computed at once, each on as many processors: up to four, and no processor idle."""
    return max(streams for streams in range(1, _MOST + 1) if cpus % streams == 0)


def streams_here() -> int:
    """`count_streams` of the processors that this process may use."""
    return count_streams(available_cpus())


def share_out(count: int, streams: int) -> list[slice]:
    """Cut a batch of at least one image into as many parts as there are streams, or into single images."""
    most = -(-count // streams)
    return [slice(first, first + most) for first in range(0, count, most)]
