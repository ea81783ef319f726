"""Run the setup.py of the current folder, with as many files compiled at once as there are processors.

    python -m benchmarks.gpu.expedition.parallel_setup bdist_wheel

setuptools compiles the files of an extension one after another, and pycuda is one extension of 90 files.
"""

import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools._distutils import ccompiler

from cascade_rt.common.processors import available_cpus


def compile_in_parallel(
    self: Any,
    sources: Any,
    output_dir: Any = None,
    macros: Any = None,
    include_dirs: Any = None,
    debug: bool = False,
    extra_preargs: Any = None,
    extra_postargs: Any = None,
    depends: Any = None,
) -> Any:
    """What `CCompiler.compile` does, one file to a thread."""
    _, objects, postargs, preprocessor, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs
    )
    arguments = self._get_cc_args(preprocessor, debug, extra_preargs)

    def compile_one(target: str) -> None:
        source, suffix = build[target]
        self._compile(target, source, suffix, arguments, postargs, preprocessor)

    with ThreadPoolExecutor(available_cpus()) as pool:
        list(pool.map(compile_one, build))
    return objects


if __name__ == "__main__":
    ccompiler.CCompiler.compile = compile_in_parallel  # type: ignore[method-assign]
    # Modules beside setup.py are imported by it.
    sys.path.insert(0, "")
    sys.argv[0] = "setup.py"
    runpy.run_path("setup.py", run_name="__main__")
