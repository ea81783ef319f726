"""The number of CPUs this process may use."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Return the number of CPUs this process may use, which can be fewer than the machine has.

    This is the minimum of the CPU affinity and the cgroup's CPU quota, as set for containers (`docker run --cpus 2`).
    Fractions of the quota are rounded up.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = granted_cpus(CGROUP)
    return allowed if granted is None else min(allowed, max(1, math.ceil(granted)))


def granted_cpus(cgroup: Path) -> float | None:
    """Return the CPU quota of a cgroup, or None if it sets no limit or does not exist.

    Args:
        cgroup: Mount point of this process's cgroup, version 2 or 1.
    """
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
    except OSError:
        return None
    return None if quota in {"max", "-1"} else int(quota) / int(period)
