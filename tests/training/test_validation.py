"""Validation measures the deployed cascade, changes nothing about the training, and keeps the best checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cascade_rt import Volume, open_cascade
from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.metrics import dice
from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.slices import Case
from cascade_rt.errors import EngineError, UsageError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.training.checkpoint import Checkpoint, load_checkpoint
from cascade_rt.training.loop import train
from cascade_rt.training.run_folder import BEST_NAME
from cascade_rt.training.validation import best_epoch, hold_out, validate
from cascade_rt_cli.main import main

CONFIG = TrainConfig(epochs=(1, 1, 0), optimizer="adam", learning_rate=1e-3, batch_size=2, slices="organ")
CASCADE = CascadeConfig(base_width=8)


def square_case(seed: int = 0, shape: tuple[int, int, int] = (3, 70, 90), *, tumor: bool = True) -> Case:
    """Noise with a bright organ in it; its slices are no multiples of 16."""
    image = np.random.default_rng(seed).normal(-80, 60, shape).astype(np.int16)
    label = np.zeros(shape, dtype=np.uint8)
    label[:, 10:40, 20:60] = 1
    if tumor:
        label[:, 20:30, 30:45] = 2
    image[label > 0] += 180
    return Case("square", image, label, (2.5, 0.8, 0.8))


def training(run: Path, config: TrainConfig = CONFIG, validation: int = 1, *, resume: bool = False) -> Checkpoint:
    held_out = [square_case(seed) for seed in range(1, 1 + validation)]
    return train([square_case()], run, CASCADE, config, data="squares", validation=held_out, resume=resume)


def test_validation_measures_what_the_exported_cascade_finds(checkpoint: Checkpoint, bundle: Bundle) -> None:
    cases, expected = [], []
    with open_cascade(bundle.path, "pytorch") as cascade:
        for case in (square_case(1), square_case(2)):
            mask = cascade.run(Volume.from_array(case.image.T, np.diag([-0.8, -0.8, 2.5, 1.0]))).mask
            label = np.concatenate([mask[:1] * 0, mask[1:]])
            cases.append(replace(case, label=label))
            expected.append([dice(mask >= lowest, label >= lowest) for lowest in (1, 2)])
    found = validate(checkpoint.build_model(), cases)
    assert [found["organ_dice"], found["tumor_dice"]] == pytest.approx(np.mean(expected, axis=0))
    assert 0 < found["tumor_dice"] < 1


@pytest.mark.parametrize(("scattered", "expected"), [(False, 1.0), (True, 3600 / 3601)])
def test_islands_are_dropped_from_adjacent_slices(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, scattered: bool, expected: float
) -> None:
    case = replace(square_case(), scattered=scattered)
    found = case.label.copy()
    found[1, 65, 85] = found[1, 67, 87] = 1
    monkeypatch.setattr("cascade_rt.training.validation.segment_voxels", lambda *_: SimpleNamespace(mask=found))
    model = replace(checkpoint, cascade=replace(checkpoint.cascade, islands="largest")).build_model()
    assert validate(model, [case])["organ_dice"] == pytest.approx(expected)


def test_the_dice_of_the_tumor_is_over_the_cases_that_hold_some(checkpoint: Checkpoint) -> None:
    model, cases = checkpoint.build_model(), [square_case(1), square_case(2, tumor=False)]
    assert validate(model, cases)["tumor_dice"] == validate(model, cases[:1])["tumor_dice"]
    assert "tumor_dice" not in validate(model, cases[1:])


def test_a_cascade_that_looks_for_the_organ_has_no_dice_of_the_tumor(checkpoint: Checkpoint) -> None:
    organ = replace(checkpoint, cascade=replace(checkpoint.cascade, target="organ"))
    assert list(validate(organ.build_model(), [square_case()])) == ["organ_dice"]


def test_a_network_without_a_stage_1_has_no_dice_of_the_organ() -> None:
    config = CascadeConfig(base_width=8, stage1="none", stage2="multiscale_unet", saliency=False)
    assert list(validate(CascadeModel(config), [square_case()])) == ["tumor_dice"]


@pytest.mark.parametrize("was_training", [True, False])
def test_validation_leaves_model_and_random_state_as_they_were(checkpoint: Checkpoint, was_training: bool) -> None:
    model = checkpoint.build_model().train(was_training)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    validate(model, [square_case()])
    assert {module.training for module in model.modules()} == {was_training}
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_nan_weights_stop_the_training_with_a_sentence() -> None:
    model = CascadeModel(CASCADE)
    torch.nn.init.constant_(model.stage1.head.bias, math.nan)
    with pytest.raises(EngineError, match=r"the training has diverged: .* with a lower train.learning_rate"):
        validate(model, [square_case()])


def test_training_ends_in_the_same_weights_with_and_without_validation(tmp_path: Path) -> None:
    with_it, without = training(tmp_path / "with"), training(tmp_path / "without", validation=0)
    assert all(torch.equal(with_it.model[name], without.model[name]) for name in without.model)
    assert not (tmp_path / "without" / BEST_NAME).exists()
    assert "organ_dice" not in without.history[0]


def test_the_best_checkpoint_is_that_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([{"organ_dice": 0.3}, {"organ_dice": 0.6, "tumor_dice": 0.2}, {"organ_dice": 0.3, "tumor_dice": 0.4}])
    monkeypatch.setattr("cascade_rt.training.loop.validate", lambda *_: next(found))
    last = training(tmp_path, replace(CONFIG, epochs=(1, 1, 1)))
    best = load_checkpoint(tmp_path / BEST_NAME)
    assert (best.epochs_done, best.history) == (2, last.history[:2])
    assert load_checkpoint(tmp_path).epochs_done == 3


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], None),
        ([{}], None),
        ([{"organ_dice": 0.0}], 1),
        ([{}, {"organ_dice": 0.5, "tumor_dice": 0.1}, {"organ_dice": 0.4}], 3),
        ([{"organ_dice": 0.5, "tumor_dice": 0.1}, {"organ_dice": 0.1, "tumor_dice": 0.5}], 1),
    ],
)
def test_the_best_epoch_is_the_first_with_the_highest_mean_dice(
    history: list[Mapping[str, float | str]], expected: int | None
) -> None:
    assert best_epoch(history) == expected


def test_a_run_is_resumed_only_with_the_same_number_held_out(tmp_path: Path) -> None:
    checkpoint = training(tmp_path, replace(CONFIG, epochs=(1, 0, 0)), 2)
    assert checkpoint.data == "squares, cases held out for validation: 2"
    with pytest.raises(UsageError, match="was trained on different data"):
        training(tmp_path, replace(CONFIG, epochs=(1, 0, 0)), 1, resume=True)


def test_the_last_cases_are_held_out() -> None:
    cases = [square_case(seed) for seed in range(3)]
    assert hold_out(cases, 0) == (cases, [])
    assert hold_out(cases, 2) == (cases[:1], cases[1:])


@pytest.mark.parametrize("count", [3, 4])
def test_holding_out_every_case_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} of 3 training cases cannot be held out; leave at least one"):
        hold_out([square_case()] * 3, count)


def cascade_rt_train(run: Path, *options: object) -> Result:
    size = ("--shape", 16, 64, 64, "--cases", 2, "--base-width", 8, "--epochs", 1, 0, 0)
    arguments = [str(each) for each in ("train", "-o", run, *size, *options)]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_train_prints_dice_per_epoch_and_the_best_checkpoint(tmp_path: Path) -> None:
    result = cascade_rt_train(tmp_path / "run", "--validate", 1)
    assert result.exit_code == 0, result.output
    first, _, last = result.stdout.splitlines()
    assert "organ Dice 0." in first
    assert last == f"best on validation: epoch 1; to use it: cascade-rt export {Path('RUN', BEST_NAME)} -o BUNDLE"
    best = load_checkpoint(tmp_path / "run" / BEST_NAME)
    assert best.data.endswith("16 x 64 x 64 voxels, cases held out for validation: 1")


def test_train_refuses_to_hold_every_case_out(tmp_path: Path) -> None:
    result = cascade_rt_train(tmp_path / "run", "--validate", 2)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
