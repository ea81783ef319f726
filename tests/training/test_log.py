"""The log and the curves of a run say what its checkpoint says."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.data.slices import Case
from cascade_rt.training.checkpoint import Checkpoint, load_checkpoint
from cascade_rt.training.curves import draw_curves, save_curves
from cascade_rt.training.log import write_log
from cascade_rt.training.loop import train
from cascade_rt.training.run_folder import CURVES_NAME, LOG_NAME, save_epoch

Entry = dict[str, float | str]


def entry(epoch: int, step: str, **numbers: float) -> Entry:
    losses = {"organ_loss": 1 / epoch, "tumor_loss": 4 / epoch, "boundary_loss": 0.0 if step == "S" else 0.01}
    return {"epoch": epoch, "step": step, **losses, "learning_rate": 1e-3, **numbers}


HISTORY = [
    entry(1, "S", organ_dice=0.4, tumor_dice=0.0),
    entry(2, "I", organ_dice=0.8, tumor_dice=0.3),
    entry(3, "J", organ_dice=0.7, tumor_dice=0.2),
]


def checkpoint_after(epochs: int) -> Checkpoint:
    history = tuple(HISTORY[:epochs])
    weights = {"weight": torch.ones(1)}
    return Checkpoint(CascadeConfig(), TrainConfig(), "nothing", epochs, weights, {}, history)


def log_lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_log_holds_every_number_of_the_history(tmp_path: Path) -> None:
    write_log(HISTORY, tmp_path / "log.csv")
    lines = log_lines(tmp_path / "log.csv")
    assert lines == [{name: str(value) for name, value in each.items()} for each in HISTORY]


def test_a_number_that_an_epoch_lacks_is_an_empty_cell(tmp_path: Path) -> None:
    write_log([entry(1, "S"), entry(2, "S", organ_dice=0.5)], tmp_path / "log.csv")
    assert [line["organ_dice"] for line in log_lines(tmp_path / "log.csv")] == ["", "0.5"]


def test_a_log_that_ran_ahead_of_its_checkpoint_is_put_right(tmp_path: Path) -> None:
    save_epoch(checkpoint_after(3), tmp_path)
    save_epoch(checkpoint_after(2), tmp_path)
    assert [line["epoch"] for line in log_lines(tmp_path / LOG_NAME)] == ["1", "2"]
    assert load_checkpoint(tmp_path).epochs_done == 2


def test_resuming_a_finished_run_writes_missing_files(tmp_path: Path) -> None:
    case = Case("bright", np.zeros((1, 64, 64), np.int16), np.ones((1, 64, 64), np.uint8), (2.5, 0.8, 0.8))
    config = TrainConfig(epochs=(1, 0, 0), slices="organ", boundary_weight=0.0)
    for _ in range(2):
        train([case], tmp_path, CascadeConfig(base_width=8), config, data="one slice", resume=True)
        assert [line["epoch"] for line in log_lines(tmp_path / LOG_NAME)] == ["1"]
        (tmp_path / LOG_NAME).unlink()


def test_the_curves_are_a_picture_as_wide_as_a_page(tmp_path: Path) -> None:
    save_epoch(checkpoint_after(3), tmp_path)
    with Image.open(tmp_path / CURVES_NAME) as picture:
        assert (picture.format, picture.width) == ("PNG", 1080)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def lines_of(panel: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in panel.get_lines()}


def test_the_curves_show_losses_and_dice_and_mark_the_best_epoch() -> None:
    losses, dice = (lines_of(panel) for panel in draw_curves(HISTORY).axes)
    assert losses == {"organ": [1, 1 / 2, 1 / 3], "tumor": [4, 2, 4 / 3], "shared boundary": [0, 0.01, 0.01]}
    assert (dice["organ"], dice["tumor"]) == ([0.4, 0.8, 0.7], [0, 0.3, 0.2])
    assert "best: epoch 2" in dice


def test_the_steps_are_named_once_each_over_their_epochs() -> None:
    history = [entry(1, "S"), entry(2, "S"), entry(3, "J")]
    (panel,) = draw_curves(history).axes
    assert [(text.get_text(), text.get_position()[0]) for text in panel.texts] == [("S", 1.5), ("J", 3.0)]


def test_without_validation_there_is_one_panel() -> None:
    assert len(draw_curves([entry(1, "S")]).axes) == 1


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_losses_that_are_nothing_or_no_number_can_be_drawn(tmp_path: Path, value: float) -> None:
    save_curves([entry(1, "S", organ_loss=value, tumor_loss=value)], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


def test_curves_omit_losses_never_computed_but_not_a_dice_of_zero() -> None:
    losses, dice = draw_curves([entry(1, "S", tumor_dice=0.0)]).axes
    assert "shared boundary" not in lines_of(losses)
    assert lines_of(dice)["tumor"] == [0]
