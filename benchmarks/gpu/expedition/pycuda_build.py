"""Build pycuda, which has no wheels, from the carried sources with the CUDA of the machine."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.expedition.packed import install_wheels
from benchmarks.gpu.expedition.parts import Write
from benchmarks.gpu.expedition.settings import Settings
from cascade_rt.errors import EngineBuildError, UsageError

FLAGS = {"CFLAGS": "-O0 -g0 -w", "CXXFLAGS": "-O0 -g0 -w", "LDFLAGS": "-Wl,--no-as-needed"}
"""Built once and called a few thousand times: what counts is that it is built soon."""


def run(settings: Settings, write: Write, deadline: Deadline) -> None:  # noqa: ARG001  it is killed then
    """Build pycuda into the folder of carried packages.

    Raises:
        UsageError: No sources were carried.
        EngineBuildError: It cannot be built; with the first error of the compiler.
    """
    if importlib.util.find_spec("pycuda") is not None:
        write("pycuda", {"built": False, "seconds": 0.0, "reason": "it is installed already"})
        return
    sources = sorted(Path(settings.packed).glob("pycuda-*.tar.gz")) if settings.packed else []
    if not sources:
        raise UsageError("no sources of pycuda were carried; pack them with python -m benchmarks.gpu.pack")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build_wheel(sources[-1], Path(scratch), include_folders())
        install_wheels([wheel], Path(settings.site))
    write("pycuda", {"built": True, "seconds": time.monotonic() - start, "sources": sources[-1].name, "reason": None})


def include_folders() -> list[Path]:
    """Folders of the machine's CUDA headers, whether from the CUDA Toolkit or from NVIDIA's packages.

    Raises:
        EngineBuildError: There are none.
    """
    nvcc = shutil.which("nvcc")
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT") if os.environ.get(name)]
    roots += [Path(nvcc).resolve().parents[1]] if nvcc else []
    roots += sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    roots += [Path(folder) / "nvidia" / "cu13" for folder in sys.path if folder]
    folders = [root / place for root in roots for place in ("include", "targets/x86_64-linux/include")]
    found = [folder for folder in dict.fromkeys(folders) if (folder / "cuda.h").is_file()]
    if not found:
        raise EngineBuildError("this machine has no headers of CUDA (no cuda.h); set CUDA_HOME")
    return found


def build_wheel(sources: Path, scratch: Path, includes: list[Path]) -> Path:
    """Build a wheel, as `requirements/build_pycuda.sh` does, but in parallel and from the headers at hand.

    Args:
        sources: The archive of pycuda's sources.
        scratch: A folder for everything.
        includes: Folders of CUDA's headers.

    Raises:
        EngineBuildError: It cannot be built.
    """
    with tarfile.open(sources) as archive:
        archive.extractall(scratch, filter="data")
    folder = scratch / sources.name.removesuffix(".tar.gz")
    # The linker only has to note the driver's name: the driver itself is there when pycuda runs.
    (scratch / "driver").mkdir()
    library = scratch / "driver" / "libcuda.so"
    empty = ["gcc", "-shared", "-Wl,-soname,libcuda.so.1", "-o", str(library), "-x", "c", "/dev/null"]
    _call("the linker", empty, scratch)
    # Without cuRAND, which nothing here uses, pycuda loads no library but the driver.
    (folder / "siteconf.py").write_text(
        f"CUDA_INC_DIR = {list(map(str, includes))!r}\n"
        f"CUDADRV_LIB_DIR = {[str(library.parent)]!r}\n"
        "CUDA_ENABLE_CURAND = False\n"
    )
    setup = [sys.executable, "-m", "benchmarks.gpu.expedition.parallel_setup", "bdist_wheel", "-d", str(scratch)]
    _call("pycuda", setup, folder)
    (wheel,) = scratch.glob("pycuda-*.whl")
    return wheel


def _call(what: str, command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **FLAGS},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode == 0:
        return
    print(done.stdout[-20_000:])
    spoken = [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
    first = next((line for line in spoken if re.search(r"\berror\b", line, re.IGNORECASE)), spoken[-1])
    raise EngineBuildError(f"{what} cannot be built ({first})")
