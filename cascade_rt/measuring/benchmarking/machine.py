"""What figures were measured with."""

import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascade_rt.common.processors import available_cpus
from cascade_rt.engines.doctor import package_versions
from cascade_rt.engines.nvidia import find_gpu
from cascade_rt.errors import BackendUnavailableError


def describe_machine() -> dict[str, Any]:
    """Processor, memory, GPU and versions; names of hosts and people are not among them."""
    try:
        gpu = asdict(find_gpu())
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
    """The processor's name as Linux has it."""
    return _processor_line("model name") or platform.processor()


def processor_features() -> list[str]:
    """Those instruction sets that decide how fast networks run."""
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile")
    flags = set(_processor_line("flags").split())
    return [name for name in known if name in flags]


def memory_bytes() -> int | None:
    """Memory of the machine; None where it cannot be told."""
    return _kilobytes(Path("/proc/meminfo"), "MemTotal")


def peak_memory_bytes() -> int:
    """The most memory that this process has ever held at once (peak resident set)."""
    # Not `ru_maxrss` where it can be avoided: a process begins with that of the one that started it.
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
