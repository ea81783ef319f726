"""What figures were measured with."""

import subprocess
from pathlib import Path

from cascade_rt.measuring.benchmarking.machine import processor_name

__all__ = ["commit", "processor_name"]


def commit() -> str:
    """The commit of the checkout, short; empty where it cannot be told."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return ""
    return told.stdout.strip()
