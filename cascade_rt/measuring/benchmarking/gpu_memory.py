"""Memory that a process holds on NVIDIA GPUs, as their driver tells it."""

import subprocess

_QUERY = ("nvidia-smi", "--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits")


def gpu_memory_bytes(pid: int) -> int | None:
    """Memory that a process holds on all GPUs; None where there is none, or where the driver does not tell.

    It is what is held when it is asked for. Engines keep what they have once taken, so after a run it is their peak.
    """
    try:
        told = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return memory_of(pid, told)


def memory_of(pid: int, table: str) -> int | None:
    """The bytes of a process in a table of `pid, MiB` lines; None where it is not in there."""
    rows = [line.split(",") for line in table.splitlines() if line.count(",") == 1]
    found = [int(used) << 20 for owner, used in rows if owner.strip() == str(pid) and used.strip().isdigit()]
    return sum(found) if found else None
