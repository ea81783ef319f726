"""Which parts of a synthetic tumor matter: variants that differ in what they name, and a second stage run alone."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks.tumor_ablation import VARIANTS, first_of_each_patient, main, stage2_alone
from benchmarks.tumor_crops.crops import Crop
from cascade_rt.config import CascadeConfig, load_config
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.models.cascade_model import CascadeModel


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_only_the_parameters_it_names(name: str, tmp_path: Path) -> None:
    base = tmp_path / "base.toml"
    base.write_text("[train]\nsynthetic_tumors = 0.5\n")
    result = CliRunner().invoke(main, ["configs", str(base), str(tmp_path / "configs")], catch_exceptions=False)
    assert result.exit_code == 0
    path = tmp_path / "configs" / f"{name}.toml"
    _, train = load_config(path)
    changed = {key for key in VARIANTS[name] if getattr(train.tumor_recipe, key) != getattr(TumorRecipe(), key)}
    assert changed == set(VARIANTS[name]) == set(tomllib.loads(path.read_text())["train"]["tumor_recipe"])


def test_the_second_stage_sees_only_the_box_of_the_pancreas() -> None:
    torch.manual_seed(0)
    find = stage2_alone(CascadeModel(CascadeConfig(base_width=8)).eval())
    hu, organ = np.full((160, 192), 80, dtype=np.int16), np.zeros((160, 192), dtype=bool)
    organ[70:90, 100:140] = True
    found = find(hu, organ)
    assert found.shape == organ.shape
    assert found[organ].min() > 0
    assert not found[:20].any()
    hu[:20] = 200
    np.testing.assert_array_equal(find(hu, organ), found)


def test_of_each_patient_the_first_crops_are_taken() -> None:
    crops = [Crop(name, index, np.zeros((8, 8), np.float32), has_tumor=False) for index, name in enumerate("aabaab")]
    assert [crop.slice for crop in first_of_each_patient(crops, 2)] == [0, 1, 2, 5]
