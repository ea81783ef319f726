"""Makes a Python environment in which there is a GPU: an emulated driver, and the real pycuda and cuda-bindings on it.

    python -m tests.cuda_emulator.build FOLDER              makes the environment, or brings it up to date
    FOLDER/bin/python -m pytest -m gpu                      runs the tests that need a GPU
    python -m tests.cuda_emulator.build FOLDER --run ...    does both; without a compiler it only says so

The environment sees all packages of the one that made it, and before them the stand-ins in `packages/`: a `tensorrt`
and an `onnxruntime` whose GPU is the CPU. The driver is loaded when Python starts, so that whoever opens
`libcuda.so.1` gets it, in child processes too. pycuda is compiled from its source (two minutes), once.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD_PYCUDA = ROOT / "requirements" / "build_pycuda.sh"
HEADERS = "nvidia-cuda-runtime"
LIBRARIES = {
    "libcuda.so.1": ("devices.c", "memory.c", "streams.c", "kernels.c", "linked_only.c"),
    "libnvidia-ml.so.1": ("management.c",),
}
_COMPILED_OR_ON_IT = ("pycuda==", "cuda-bindings==", "nvidia-cuda-")
QUICK_TO_COMPILE = "-O0 -g0 -w"


class CannotBuildError(Exception):
    """This machine cannot build the environment; the message says what it lacks."""


def build(folder: Path) -> None:
    """Make the environment, or bring what has changed up to date.

    Raises:
        CannotBuildError: This is not Linux, or there is no compiler.
    """
    _check_machine()
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=False, symlinks=True)
    _show_packages(folder)
    pins = [pin for pin in (ROOT / "constraints.txt").read_text().split() if pin.startswith(_COMPILED_OR_ON_IT)]
    _once(folder / "packages.stamp", ["".join(pins), BUILD_PYCUDA.read_text()], _install)
    sources = [path.read_text() for path in sorted((HERE / "driver").iterdir())]
    _once(folder / "driver.stamp", sources, _compile)


def _check_machine() -> None:
    if not sys.platform.startswith("linux"):
        raise CannotBuildError("the CUDA driver is emulated on Linux only")
    missing = [name for name in ("gcc", "g++") if shutil.which(name) is None]
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing.append("Python.h")
    if missing:
        raise CannotBuildError(f"{', '.join(missing)} not found; on Debian: apt-get install gcc g++ python3-dev")


def _once(stamp: Path, inputs: list[str], make: Callable[[Path], None]) -> None:
    """Call `make` with the folder unless it was done for these inputs."""
    digest = hashlib.sha256("".join(inputs).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        make(stamp.parent)
        stamp.write_text(digest)


def _site_packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python*/site-packages")
    return found


def _show_packages(folder: Path) -> None:
    """Let the environment load the driver, and see the stand-ins, its own packages and ours, in this order."""
    outer = sysconfig.get_path("purelib")
    libraries = [str(folder.resolve() / "lib" / name) for name in LIBRARIES]
    lines = (
        f"import ctypes, os; list(map(ctypes.CDLL, filter(os.path.exists, {libraries})))",
        f"import sys; sys.path.insert(0, {str(HERE / 'packages')!r})",
        f"import site; site.addsitedir({outer!r})",
    )
    (_site_packages(folder) / "emulated_gpu.pth").write_text("\n".join(lines) + "\n")


def _install(folder: Path) -> None:
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
    constraint = f"--constraint={ROOT / 'constraints.txt'}"
    subprocess.run([*pip, constraint, HEADERS, "cuda-bindings"], check=True)
    subprocess.run(
        ["bash", BUILD_PYCUDA, python, folder / "wheels"], check=True, env=os.environ | {"CFLAGS": QUICK_TO_COMPILE}
    )


def _compile(folder: Path) -> None:
    (include,) = _site_packages(folder).glob("nvidia/*/include")
    for name, sources in LIBRARIES.items():
        unfinished = folder / "lib" / f"{name}.new"
        command = ["gcc", "-shared", "-fPIC", "-O1", "-g", f"-I{include}", f"-Wl,-soname,{name}", f"-o{unfinished}"]
        subprocess.run([*command, *(HERE / "driver" / source for source in sources)], check=True)
        unfinished.rename(folder / "lib" / name)


def main() -> None:
    """Build, and run Python in the environment if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", nargs=argparse.REMAINDER, metavar="...", help="arguments of Python")
    options = parser.parse_args()
    try:
        build(options.folder)
    except CannotBuildError as error:
        if options.run is None:
            sys.exit(str(error))
        print(f"skipped: the tests that need a GPU, since none can be emulated here ({error})")  # noqa: T201
        return
    if options.run is not None:
        python = options.folder / "bin" / "python"
        os.execv(python, [str(python), *options.run])


if __name__ == "__main__":
    main()
