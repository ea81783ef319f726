"""How many processors this process may use."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Processors this process may keep busy, which can be fewer than the machine has.

    The fewest of: those it is allowed to run on, and those whose time its control group grants it, as containers do
    (`docker run --cpus 2`); part of a processor counts as one.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = granted_cpus(CGROUP)
    return allowed if granted is None else min(allowed, max(1, math.ceil(granted)))


def granted_cpus(cgroup: Path) -> float | None:
    """Processors that a control group grants; None where it sets no limit or is none.

    Args:
        cgroup: Where the control group of this process is mounted, of version 2 or 1.
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
