"""A training records which pixels and slices it has seen, and validates on others as the exported cascade would."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cascade_rt.common.metrics import dice
from cascade_rt.config import CascadeConfig
from cascade_rt.data.slices import Case
from cascade_rt.engines import Engines
from cascade_rt.engines.pytorch import PyTorchEngine
from cascade_rt.run.scan_run import segment_voxels
from cascade_rt.training.checkpoint import Checkpoint, load_checkpoint
from cascade_rt.training.spacing import with_spacing
from cascade_rt.training.validation import validate
from cascade_rt_cli.main import main
from tests.data_trees import msd_tree

CONFIG = CascadeConfig(base_width=8)


def case(*spacing_mm: float) -> Case:
    image = np.random.default_rng(0).normal(-80, 60, (2, 70, 90)).astype(np.int16)
    label = np.zeros(image.shape, dtype=np.uint8)
    label[:, 10:40, 20:60] = 1
    image[label > 0] += 180
    z, row, col = spacing_mm
    return Case("case", image, label, (z, row, col))


def cascade_rt(*arguments: object) -> None:
    done = CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


CASES = [case(2.5, 0.8, 0.8), case(1.0, 0.7, 0.7), case(5.0, 0.9, 0.9)]


def test_what_was_seen_is_recorded() -> None:
    found = with_spacing(CONFIG, CASES)
    assert (found.pixel_mm, found.slice_mm) == ((0.7, 0.9), (1.0, 5.0))
    assert replace(found, pixel_mm=None, slice_mm=None) == CONFIG


def test_what_the_config_says_stays() -> None:
    config = replace(CONFIG, pixel_mm=(0.5, 1.0), slice_mm=(2.0, 3.0))
    assert with_spacing(config, CASES) == config


def test_training_on_a_store_records_it(tmp_path: Path) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    cascade_rt("prepare", "--dataset", "msd", msd_tree(tmp_path / "data"), "-o", store)
    cascade_rt("train", "--dataset", "msd", store, "-o", run, "--base-width", 8, "--epochs", 1, 0, 0)
    found = load_checkpoint(run).cascade
    assert found.pixel_mm == pytest.approx((0.7, 0.8))
    assert found.slice_mm == pytest.approx((2.5, 2.5))


def test_validation_resamples_as_the_exported_cascade_does(checkpoint: Checkpoint) -> None:
    model = replace(checkpoint, cascade=replace(checkpoint.cascade, pixel_mm=(0.7, 0.9))).build_model()
    engines = Engines(PyTorchEngine(model, "stage1"), PyTorchEngine(model, "stage2"))
    coarse = case(2.5, 1.4, 1.4)
    mask = segment_voxels(engines, model.config, coarse.image, (1.4, 1.4)).mask
    as_it_is = segment_voxels(engines, model.config, coarse.image, None).mask
    assert not np.array_equal(mask, as_it_is)
    # The label is not what this untrained model finds, but a Dice tells one mask from another.
    assert validate(model, [coarse])["organ_dice"] == pytest.approx(dice(mask >= 1, coarse.label >= 1))
