"""What figures were measured with."""

import platform
import subprocess
from pathlib import Path


def commit() -> str:
    """The commit of the checkout, short; empty where it cannot be told."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return ""
    return told.stdout.strip()


def processor_name() -> str:
    """The processor's name as Linux has it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
