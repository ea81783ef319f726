"""Pack what a lent machine lacks, so that it can travel with the code and needs no network there.

    python -m benchmarks.gpu.pack FOLDER

Wheels for the Python of that machine, and the sources of pycuda, which has no wheels. They come from the package index
that pip is set up for, in the versions of `constraints.txt` where it names one.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cascade_rt.common.outputs import make_folder
from cascade_rt.errors import CascadeError, OutputError, UsageError

WHEELS = ("isal", "nibabel", "pytools", "mako", "markupsafe", "platformdirs", "siphash24", "typing-extensions")
"""Reading NIfTI; what pycuda imports."""
SOURCES = ("pycuda",)
PYTHON = "3.12"
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (39, 34, 28, 27, 24, 17, 12, 5)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)
MOST_BYTES = 60 << 20
"""64 MiB travel with a call, the code among them."""
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def main() -> None:
    """Download, and say what it weighs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=PYTHON, help=f"version of the machine's Python; default: {PYTHON}")
    options = parser.parse_args()
    try:
        make_folder(options.folder)
        for command in downloads(options.folder, options.python):
            _download(command)
        size = packed_bytes(options.folder)
    except CascadeError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{options.folder}: {len(list(options.folder.iterdir()))} files, {size / (1 << 20):.1f} MiB")


def downloads(folder: Path, python: str = PYTHON) -> list[list[str]]:
    """The arguments of pip that download all, each package without what it needs: that is named here, or there.

    Args:
        folder: Where the files go.
        python: Version of the Python that will install them.
    """
    constraints = ["--constraint", str(CONSTRAINTS)]
    common = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", *constraints, "--dest", str(folder)]
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    target += [f"--platform={platform}" for platform in PLATFORMS]
    sources = [f"--no-binary={','.join(SOURCES)}"]
    return [[*common, *target, *WHEELS], [*common, *sources, *SOURCES]]


def packed_bytes(folder: Path, most: int = MOST_BYTES) -> int:
    """What the files of a folder weigh together.

    Raises:
        OutputError: More than may travel; the message names the heaviest.
    """
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    whole = sum(sizes.values())
    if whole > most:
        heaviest = max(sizes, key=sizes.__getitem__)
        raise OutputError(
            f"{folder}: {whole / (1 << 20):.1f} MiB, more than the {most / (1 << 20):.0f} MiB that can travel; "
            f"the heaviest is {heaviest} ({sizes[heaviest] / (1 << 20):.1f} MiB); choose an empty folder, or pack less"
        )
    return whole


def _download(arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        spoken = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UsageError(f"pip cannot download what is packed ({spoken[-1]})")


if __name__ == "__main__":
    main()
