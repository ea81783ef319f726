"""Memory that a process holds on NVIDIA GPUs, as reported by the driver."""

import subprocess

_QUERY = ("nvidia-smi", "--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits")


def gpu_memory_bytes(pid: int) -> int | None:
    """Return the bytes that a process holds on all GPUs, or None if there is none or the driver does not report it.

    This is the current value. Engines keep memory once allocated, so after a run it equals their peak.
    """
    try:
        told = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return memory_of(pid, told)


def memory_of(pid: int, table: str) -> int | None:
    """Return the bytes of a process in a table of `pid, MiB` lines, or None if it is not listed."""
    rows = [line.split(",") for line in table.splitlines() if line.count(",") == 1]
    found = [int(used) << 20 for owner, used in rows if owner.strip() == str(pid) and used.strip().isdigit()]
    return sum(found) if found else None
