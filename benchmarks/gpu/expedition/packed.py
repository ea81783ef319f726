"""Install the carried wheels into a folder that goes on the path of every part."""

import subprocess
import sys
from pathlib import Path

from cascade_rt.errors import UsageError


def install_packed(packed: Path, site: Path) -> tuple[str, ...]:
    """Install all wheels of a folder, without a network and without their requirements.

    Args:
        packed: What `benchmarks.gpu.pack` wrote.
        site: The folder to install into.

    Returns:
        The file names of the wheels.

    Raises:
        UsageError: The folder has no wheels, or pip refuses one.
    """
    wheels = sorted(packed.glob("*.whl"))
    if not wheels:
        raise UsageError(f"{packed}: no wheels; pack them with python -m benchmarks.gpu.pack {packed}")
    install_wheels(wheels, site)
    return tuple(wheel.name for wheel in wheels)


def install_wheels(wheels: list[Path], site: Path) -> None:
    """Install wheels into a folder.

    Raises:
        UsageError: pip refuses one.
    """
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"pip cannot install the carried wheels ({done.stderr.strip().splitlines()[-1]})")
