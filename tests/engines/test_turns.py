"""Threads take turns with engines, and a process that did not open them has none."""

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cascade_rt import open_cascade
from cascade_rt.engines import Backend, Engines
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import UsageError
from cascade_rt.run.cascade import Cascade
from cascade_rt.scans.volume import Volume
from tests.cohort_files import AFFINE, fake_cascade

ROOT = Path(__file__).parents[2]


@pytest.fixture
def volume() -> Volume:
    voxels = np.random.default_rng(5).integers(-1000, 300, (64, 64, 4)).astype(np.int16)
    return Volume.from_array(voxels, AFFINE)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_threads_that_share_a_cascade_get_the_mask_that_one_alone_gets(backend: Backend, volume: Volume) -> None:
    with open_cascade("phantom", backend) as cascade, ThreadPoolExecutor(4) as pool:
        alone = cascade.run(volume).mask
        for found in pool.map(cascade.run, [volume] * 8):
            np.testing.assert_array_equal(found.mask, alone)


def test_a_scan_waits_for_the_scan_of_another_thread(volume: Volume) -> None:
    """Both stages are one thing: a second scan between them would find the first one's images."""
    cascade = fake_cascade()
    order: list[str] = []
    begun = threading.Event()

    def segment(name: str) -> None:
        def note(_: int) -> None:
            order.append(name)
            begun.set()

        cascade.run(volume, on_slices=note)
        order.append(name)

    first = threading.Thread(target=segment, args=("first",))
    first.start()
    begun.wait()
    segment("second")
    first.join()
    assert order == sorted(order)


def test_a_thread_that_is_called_back_may_run_the_cascade_again(volume: Volume) -> None:
    cascade = fake_cascade()
    inner = []
    outer = cascade.run(volume, on_slices=lambda _: inner.append(cascade.run(volume).mask))
    np.testing.assert_array_equal(inner[0], outer.mask)


FORKED = """
import os
import numpy as np
from cascade_rt.errors import CascadeError
from cascade_rt.scans.volume import Volume
from tests.cohort_files import AFFINE, fake_cascade

cascade = fake_cascade()
volume = Volume.from_array(np.arange(64 * 64 * 2, dtype=np.int16).reshape(64, 64, 2), AFFINE)
with cascade.engines.turns.take():  # as a thread may have it when the process is forked
    child = os.fork()
if not child:
    try:
        cascade.run(volume)
    except CascadeError as error:
        print(error.code, error.exit_code, flush=True)
    cascade.close()
    os._exit(0)
os.waitpid(child, 0)
print("still open" if cascade.run(volume).mask.any() else "nothing found")
"""

FORKED_PYTORCH = """
import os
import torch
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.base import smallest_inputs
from cascade_rt.engines.pytorch import PyTorchEngine
from cascade_rt.errors import CascadeError
from cascade_rt.models.cascade_model import CascadeModel

torch.set_num_threads(2)
engine = PyTorchEngine(CascadeModel(CascadeConfig(base_width=8)), "stage1")
engine.run(smallest_inputs("stage1"))
child = os.fork()
if not child:
    try:
        PyTorchEngine(CascadeModel(CascadeConfig(base_width=8)), "stage1").run(smallest_inputs("stage1"))
    except CascadeError as error:
        print(error.code, error.exit_code, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def said_by(script: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return run.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_is_refused_and_takes_nothing_away() -> None:
    assert said_by(FORKED) == ["E_OTHER_PROCESS 2", "still open"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_pytorch_does_not_wait_for_threads_that_were_not_forked() -> None:
    pytest.importorskip("torch")
    assert said_by(FORKED_PYTORCH) == ["E_BACKEND 7"]


def test_a_cascade_is_not_sent_to_another_process() -> None:
    with pytest.raises(UsageError, match="open the bundle in each process"):
        pickle.dumps(fake_cascade())


def test_the_second_engine_is_closed_even_if_closing_the_first_fails() -> None:
    class Stuck(FakeEngine):
        def close(self) -> None:
            raise RuntimeError("stuck")

    cascade: Cascade = fake_cascade()
    engines = Engines(Stuck("stage1", lambda _: {}), cascade.engines.stage2)
    with pytest.raises(RuntimeError, match="stuck"):
        engines.close()
    with pytest.raises(RuntimeError, match="engine is closed"):
        engines.stage2.run({"salient": np.zeros((1, 1, 64, 64), np.float32)})
