"""Describe the machine that a benchmark ran on."""

import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascade_rt.common.processors import available_cpus
from cascade_rt.engines.doctor import package_versions
from cascade_rt.engines.nvidia import find_gpu
from cascade_rt.errors import BackendUnavailableError


def describe_machine(device: int = 0) -> dict[str, Any]:
    """Return processor, memory, GPU and package versions, without host or user names.

    Args:
        device: Number of the GPU to describe, if there is one.
    """
    try:
        gpu = asdict(find_gpu(device=device))
    except BackendUnavailableError:
        gpu = None
    return {
        "processor": processor_name(),
        "cpus": available_cpus(),
        "processor_features": processor_features(),
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpu,
        "versions": {name: version for name, version in package_versions().items() if version},
    }


def processor_name() -> str:
    """Return the processor name as reported by Linux, or by Python on other systems."""
    return _processor_line("model name") or platform.processor()


def processor_features() -> list[str]:
    """Return the supported instruction sets that matter for the speed of networks."""
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile")
    flags = set(_processor_line("flags").split())
    return [name for name in known if name in flags]


def memory_bytes() -> int | None:
    """Return the memory of the machine in bytes, or None if unknown."""
    return _kilobytes(Path("/proc/meminfo"), "MemTotal")


def peak_memory_bytes() -> int:
    """Return the high-water mark of this process's resident memory, in bytes."""
    # Avoid `ru_maxrss` if possible: a process inherits its initial value from its parent.
    peak = _kilobytes(Path("/proc/self/status"), "VmHWM")
    if peak is not None:
        return peak
    import resource
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _processor_line(name: str) -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    found = re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _kilobytes(path: Path, name: str) -> int | None:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) << 10 if found else None
