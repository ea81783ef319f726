"""Each variant and each comparator goes the whole way with the same commands: train, export, infer, evaluate.

With the flags of a newcomer, half precision among them. Two run with every test run; the others take minutes:
`pytest -m slow tests/cli/test_variants.py`. Of those that do not run always, `tests/export` plans the half precision.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.config import COMPARATORS, VARIANTS
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt_cli.main import main

ALWAYS = {"u", "m-p-t-l"}
SHAPE = (16, 96, 96)
EPOCHS = (1, 1, 8)
"""After three epochs a network may still call all the background 0.500008, and the last bit of a float decides."""
CHOICES = [("--variant", name) for name in VARIANTS] + [("--network", name) for name in COMPARATORS]


def cascade_rt(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the phantoms to train on, which all runs share."""
    return tmp_path_factory.mktemp("phantoms")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for seed in (3, 4):
        name = f"{seed}.nii.gz"
        write_phantom_files(make_phantom(seed, SHAPE), folder / "images" / name, folder / "labels" / name)
    return folder


@pytest.mark.parametrize(
    ("option", "name"),
    [pytest.param(*choice, marks=[] if choice[1] in ALWAYS else [pytest.mark.slow]) for choice in CHOICES],
)
def test_it_is_trained_exported_run_and_evaluated(
    option: str, name: str, phantoms: Path, cohort: Path, tmp_path: Path
) -> None:
    run, bundle, report = tmp_path / "run", tmp_path / "bundle", tmp_path / "report.json"
    size = ("--base-width", 8, "--cases", 1, "--shape", *SHAPE, "--epochs", *EPOCHS)
    cascade_rt("train", phantoms, "-o", run, option, name, *size)
    cascade_rt("export", run, "-o", bundle, "--calibrate", cohort / "images" / "3.nii.gz")
    cascade_rt("infer", cohort / "images" / "3.nii.gz", "--bundle", bundle, "-o", tmp_path)
    mask = np.asarray(nib.load(tmp_path / "3_seg.nii.gz").dataobj)
    assert set(np.unique(mask)) <= ({0, 2} if name in {"u", "m", *COMPARATORS} else {0, 1, 2})
    folders = ("--images", cohort / "images", "--labels", cohort / "labels")
    cascade_rt("evaluate", *folders, "--bundle", bundle, "--baseline", "pytorch", "-o", report)
    found = json.loads(report.read_text())
    assert found["failures"] == []
    assert found["baseline"]["different_voxels_per_100_000"] <= 1
    assert (found["aggregates"]["organ"] is None) == (name in {"u", "m", *COMPARATORS})
