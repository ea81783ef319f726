"""Whatever standard operators a graph is made of, opening it ends in a sentence and a code.

The graphs are opened in a process of their own, one after the other; where one ends it, the next goes on behind it.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from cascade_rt.engines import Backend
from tests.crafted_graphs import all_graphs

pytest.importorskip("resource", reason="the memory of a process cannot be limited here")

ROOT = Path(__file__).parents[2]
NAMES = [name for name, _ in all_graphs()]
BACKENDS: list[Backend] = ["onnxruntime", "openvino"]


@cache
def outcomes(backend: Backend) -> list[str]:
    """What became of each graph: a code, or how the process ended."""
    found: list[str] = []
    while len(found) < len(NAMES):
        run = subprocess.run(
            [sys.executable, "-m", "tests.crafted_graphs", backend, str(len(found))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line.partition(" ")[2] for line in run.stdout.splitlines()]
        found += lines if run.returncode == 0 else [*lines[:-1], f"the process ended with {run.returncode}"]
        assert lines, run.stderr
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", range(len(NAMES)), ids=[f"{number} {name}" for number, name in enumerate(NAMES)])
def test_a_crafted_graph_is_refused_with_a_sentence(number: int, backend: Backend) -> None:
    code, exit_code, sentence = outcomes(backend)[number].strip("'\"").split(" ", 2)
    assert code.startswith("E_")
    assert exit_code in {"5", "7"} or code == "E_SELF_TEST"
    assert "; " in sentence
    assert "\\x1b" not in sentence
