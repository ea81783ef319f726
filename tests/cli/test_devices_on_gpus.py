"""Two GPUs on the emulated driver, from file to file. The driver reads how many there are when Python starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.data.phantom import make_phantom
from tests.cohort_files import save_labels
from tests.cohort_runs import masks
from tests.cuda_emulator.driver import is_emulated

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not is_emulated(), reason="needs the emulated driver"),
]

EQUAL = {"CUDA_EMULATOR_DEVICES": "2", "CUDA_EMULATOR_MODEL": "NVIDIA Emulated GPU"}
DIFFERENT = {"CUDA_EMULATOR_DEVICES": "2"}

COUNT_WORK = """
import sys
import numpy as np
from cascade_rt import EngineRequest, segment
from cascade_rt_export.plans import built_plans
from tests.cuda_emulator.driver import Emulator

device = int(sys.argv[1])
scan = (np.zeros((64, 64, 2), np.float32), np.eye(4))
segment(scan, bundle="phantom", engines=EngineRequest("tensorrt", "fp32", built_plans(), device))
print(*(Emulator().counters(each).allocations > 0 for each in range(2)))
"""


def python(tmp_path: Path, machine: dict[str, str], *arguments: str) -> str:
    """Run Python on a machine, and return what it printed."""
    environment = os.environ | {"CASCADE_RT_CACHE": str(tmp_path / "engines")} | machine
    done = subprocess.run(
        [sys.executable, *arguments], check=False, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def save_scans(folder: Path, count: int) -> None:
    """Scans of three slices, in which the bundle finds something."""
    hu = make_phantom(10001, (48, 256, 256)).hu
    for first in range(27, 27 + count):
        save_labels(folder / f"from{first}.nii.gz", hu[first : first + 3], np.diag([-1.6, -1.6, 5.0, 1.0]))


def infer(tmp_path: Path, machine: dict[str, str], output: str, *options: str) -> Path:
    engines = ("--bundle", "phantom", "--backend", "tensorrt", "--precision", "fp32")
    python(tmp_path, machine, "-m", "cascade_rt_cli", "infer", "scans", "-o", output, *engines, *options)
    return tmp_path / output


def devices(output: Path) -> set[str]:
    return {json.loads(path.read_text())["provenance"]["engine"]["device"] for path in output.glob("*_seg.json")}


def plans(tmp_path: Path) -> int:
    return len(list((tmp_path / "engines").glob("*/engine.plan")))


def test_workers_on_two_equal_gpus_find_what_one_finds_and_share_its_engines(tmp_path: Path) -> None:
    save_scans(tmp_path / "scans", 4)
    one = infer(tmp_path, EQUAL, "one", "--device", "1")
    two = infer(tmp_path, EQUAL, "two", "--devices", "0,1")
    assert devices(one) == {"NVIDIA Emulated GPU (GPU 1)"}
    assert devices(two) == {"NVIDIA Emulated GPU (GPU 0)", "NVIDIA Emulated GPU (GPU 1)"}
    assert masks(two) == masks(one)
    assert all(np.any(nib.load(path).dataobj) for path in two.glob("*_seg.nii.gz"))
    assert plans(tmp_path) == 2


def test_gpus_of_different_models_have_engines_of_their_own(tmp_path: Path) -> None:
    save_scans(tmp_path / "scans", 1)
    for device in ("0", "1"):
        infer(tmp_path, DIFFERENT, f"on{device}", "--device", device)
    assert plans(tmp_path) == 4


@pytest.mark.parametrize(("device", "used"), [("0", "True False"), ("1", "False True")])
def test_nothing_is_allocated_on_another_gpu(tmp_path: Path, device: str, used: str) -> None:
    assert python(tmp_path, EQUAL, "-c", COUNT_WORK, device).strip() == used
