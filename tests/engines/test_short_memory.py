"""Where memory is short while an engine opens, that is what the error says, and `auto` goes on to the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cascade_rt.engines.openvino_session import named_failures
from cascade_rt.engines.out_of_memory import is_out_of_memory
from cascade_rt.errors import BundleError, EngineOutOfMemoryError

ROOT = Path(__file__).parents[2]

OPEN = """
import resource, sys
from cascade_rt import open_cascade
from cascade_rt.errors import CascadeError
limit = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    open_cascade("phantom", "openvino").close()
except CascadeError as error:
    print(error.code)
else:
    print("opened")
"""


@pytest.mark.parametrize("megabytes", [550, 700])
def test_openvino_short_of_memory_on_opening_does_not_blame_the_bundle(megabytes: int) -> None:
    pytest.importorskip("resource", reason="the memory of a process cannot be limited here")
    run = subprocess.run(
        [sys.executable, "-c", OPEN, str(megabytes)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    # How much is enough is for the libraries of this machine to say.
    assert run.stdout.strip() in {"opened", "E_OUT_OF_MEMORY", "E_BACKEND"}, run.stderr


@pytest.mark.parametrize(
    "said",
    [
        "std::bad_alloc",
        "[CPU] Convolution node with name 'conv' can't alloc",
        "Exception from src/inference/src/dev/plugin.cpp:54:\nResource temporarily unavailable",
        "can't start new thread",
    ],
)
def test_what_libraries_say_of_short_memory_is_understood(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))
    with pytest.raises(EngineOutOfMemoryError, match="stage1 on openvino ran out"), named_failures("stage1", "run"):
        raise RuntimeError(said)


def test_what_else_openvino_says_is_of_the_graph() -> None:
    with pytest.raises(BundleError, match="stage1: OpenVINO cannot run; export"), named_failures("stage1", "run"):
        raise RuntimeError("Check 'false' failed")
