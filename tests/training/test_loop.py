"""Training: what each step sees, that it learns, and that a stopped run goes on as if it had not been stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cascade_rt.config import CascadeConfig, TrainConfig
from cascade_rt.errors import BundleError, OutputExistsError, UsageError
from cascade_rt.training.checkpoint import FILE_NAME, load_checkpoint
from cascade_rt.training.loop import train
from cascade_rt.training.run_folder import CURVES_NAME, LOG_NAME
from tests.training_cases import disc_case

CASCADE = CascadeConfig(base_width=8)
CONFIG = TrainConfig(epochs=(1, 1, 1), optimizer="adam", learning_rate=1e-3, batch_size=2, slices="organ")


def losses(run: Path, config: TrainConfig = CONFIG, **options: object) -> list[float]:
    seen: list[float] = []
    train(
        [disc_case()],
        run,
        CASCADE,
        config,
        data="discs",
        on_batch=lambda progress: seen.append(progress.organ_loss + progress.tumor_loss),
        **options,  # type: ignore[arg-type]
    )
    return seen


def test_losses_fall_through_the_three_steps(tmp_path: Path) -> None:
    seen = losses(tmp_path, replace(CONFIG, epochs=(4, 4, 12)))
    assert np.mean(seen[-4:]) < 0.75 * np.mean(seen[:4])


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    losses(tmp_path / "a")
    losses(tmp_path / "b")
    first, second = (load_checkpoint(tmp_path / name).model for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    losses(tmp_path, replace(CONFIG, epochs=(1, 0, 0)))
    assert torch.equal(torch.rand(3), expected)


def test_training_resumed_mid_epoch_ends_in_the_same_weights(tmp_path: Path) -> None:
    losses(tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop_in_epoch_2(progress: object) -> None:
        if (progress.epoch, progress.batch) == (1, 1):  # type: ignore[attr-defined]
            raise StopError

    with pytest.raises(StopError):
        train([disc_case()], tmp_path / "parts", CASCADE, CONFIG, data="discs", on_batch=stop_in_epoch_2)
    assert load_checkpoint(tmp_path / "parts").epochs_done == 1
    losses(tmp_path / "parts", resume=True)
    whole, parts = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "parts")
    assert all(torch.equal(whole.model[name], parts.model[name]) for name in whole.model)
    assert whole.history == parts.history


def test_the_checkpoint_holds_steps_and_losses_of_each_epoch(tmp_path: Path) -> None:
    losses(tmp_path)
    history = load_checkpoint(tmp_path).history
    assert [(entry["epoch"], entry["step"]) for entry in history] == [(1, "S"), (2, "I"), (3, "J")]
    parts = ("organ_loss", "tumor_loss", "boundary_loss")
    assert np.isfinite([[entry[part] for part in parts] for entry in history]).all()


def test_no_boundary_loss_is_reported_before_its_step(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    config = replace(CONFIG, boundary_from="I")
    checkpoint = train(
        [disc_case()],
        tmp_path,
        CASCADE,
        config,
        data="discs",
        on_batch=lambda progress: seen.append((progress.step, progress.boundary_loss > 0)),
    )
    assert set(seen) == {("S", False), ("I", True), ("J", True)}
    assert [float(entry["boundary_loss"]) > 0 for entry in checkpoint.history] == [False, True, True]


def test_a_run_may_start_from_the_weights_of_another(tmp_path: Path) -> None:
    first = train([disc_case()], tmp_path / "first", CASCADE, replace(CONFIG, epochs=(1, 0, 0)), data="discs")
    still = replace(CONFIG, epochs=(0, 0, 1), learning_rate=1e-12, weight_decay=0.0, seed=5)
    second = train([disc_case()], tmp_path / "second", CASCADE, still, data="more discs", initial=first)
    name = "stage2.localization.map.weight"
    torch.testing.assert_close(second.model[name], first.model[name])
    assert second.data == "more discs, after 1 epochs on discs"


def test_partial_init_copies_weights_that_fit_and_keeps_the_rest_random(tmp_path: Path) -> None:
    first = train([disc_case()], tmp_path / "first", CASCADE, replace(CONFIG, epochs=(1, 0, 0)), data="discs")
    wider = replace(CASCADE, min_focusing_channels=16)
    still = replace(CONFIG, epochs=(0, 0, 1), learning_rate=1e-12, weight_decay=0.0, partial_init=True)
    second = train([disc_case()], tmp_path / "second", wider, still, data="discs", initial=first)
    same, wide = "stage2.focusing.0.map.weight", "stage2.focusing.3.map.weight"
    torch.testing.assert_close(second.model[same], first.model[same])
    assert (first.model[wide].shape[1], second.model[wide].shape[1]) == (4, 16)


def test_init_from_another_network_requires_partial_init(tmp_path: Path) -> None:
    first = train([disc_case()], tmp_path / "first", CASCADE, replace(CONFIG, epochs=(1, 0, 0)), data="discs")
    with pytest.raises(BundleError, match=r"weights of another network; load what fits with train\.partial_init"):
        train(
            [disc_case()],
            tmp_path / "second",
            replace(CASCADE, min_focusing_channels=16),
            CONFIG,
            data="discs",
            initial=first,
        )


def test_partial_init_from_a_network_with_no_common_weights_is_refused(tmp_path: Path) -> None:
    first = train([disc_case()], tmp_path / "first", CASCADE, replace(CONFIG, epochs=(1, 0, 0)), data="discs")
    stranger = replace(first, model={"weight": torch.zeros(1)})
    config = replace(CONFIG, partial_init=True)
    with pytest.raises(BundleError, match="none of its weights fit"):
        train([disc_case()], tmp_path / "second", CASCADE, config, data="discs", initial=stranger)


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    losses(tmp_path, replace(CONFIG, epochs=(1, 0, 0)))
    with pytest.raises(OutputExistsError, match="contains a training run; continue it with `resume`"):
        losses(tmp_path)


def test_a_resumed_run_without_recorded_spacings_gets_them(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=(2, 0, 0))

    class StopError(Exception):
        pass

    def stop(_: object) -> None:
        raise StopError

    with pytest.raises(StopError):
        train([disc_case()], tmp_path, CASCADE, config, data="discs", on_epoch=stop)
    cascade = replace(CASCADE, pixel_mm=(0.6, 0.9), slice_mm=(1.0, 5.0))
    checkpoint = train([disc_case()], tmp_path, cascade, config, data="discs", resume=True)
    assert (checkpoint.epochs_done, checkpoint.cascade) == (2, cascade)


def test_a_run_is_not_resumed_if_other_spacings_were_recorded(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=(1, 0, 0))
    first, second = (replace(CASCADE, pixel_mm=(low, 0.9)) for low in (0.6, 0.7))
    train([disc_case()], tmp_path, first, config, data="discs")
    with pytest.raises(UsageError, match="was trained with another configuration"):
        train([disc_case()], tmp_path, second, config, data="discs", resume=True)


def test_a_run_is_not_resumed_with_another_configuration(tmp_path: Path) -> None:
    losses(tmp_path, replace(CONFIG, epochs=(1, 0, 0)))
    with pytest.raises(UsageError, match="was trained with another configuration"):
        losses(tmp_path, replace(CONFIG, seed=9), resume=True)


def test_nothing_is_left_but_checkpoint_log_and_curves(tmp_path: Path) -> None:
    losses(tmp_path, replace(CONFIG, epochs=(1, 0, 0)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, CURVES_NAME, LOG_NAME]


def test_mixed_precision_keeps_weights_in_float32(tmp_path: Path) -> None:
    losses(tmp_path, replace(CONFIG, epochs=(1, 0, 0), mixed_precision=True))
    weights = load_checkpoint(tmp_path).model
    assert {tensor.dtype for name, tensor in weights.items() if "num_batches" not in name} == {torch.float32}


@pytest.mark.parametrize("transfer", [False, True])
def test_transfer_starts_step_i_with_the_encoder_of_stage_1(tmp_path: Path, transfer: bool) -> None:
    config = replace(CONFIG, epochs=(1, 1, 0), transfer=transfer, learning_rate=1e-12, weight_decay=0.0)
    weights = train([disc_case()], tmp_path, CASCADE, config, data="discs").model
    name = "encoder.blocks.0.branch1.0.0.weight"
    close = torch.allclose(weights[f"stage1.{name}"], weights[f"stage2.{name}"], atol=1e-6)
    assert close == transfer


def test_a_frozen_stage_1_keeps_its_weights_and_running_statistics(tmp_path: Path) -> None:
    first = train([disc_case()], tmp_path / "first", CASCADE, replace(CONFIG, epochs=(1, 0, 0)), data="discs")
    config = replace(CONFIG, train_stage1=False, transfer=False)
    second = train([disc_case()], tmp_path / "second", CASCADE, config, data="discs", initial=first)
    changed = {name.partition(".")[0] for name in first.model if not torch.equal(first.model[name], second.model[name])}
    assert changed == {"saliency", "stage2"}


def test_a_batch_from_which_nothing_can_be_learned_changes_nothing(tmp_path: Path) -> None:
    first = train([disc_case()], tmp_path / "first", CASCADE, replace(CONFIG, epochs=(1, 0, 0)), data="discs")
    blind = {**first.model, "stage1.head.bias": torch.full_like(first.model["stage1.head.bias"], -100.0)}
    empty = replace(disc_case(), label=np.zeros_like(disc_case().label))
    cascade = replace(CASCADE, crop=replace(CASCADE.crop, empty_policy="skip"))
    config = replace(CONFIG, epochs=(0, 0, 1), slices="all", train_stage1=False, transfer=False, weight_decay=0.0)
    initial = replace(first, model=blind)
    second = train([empty], tmp_path / "second", cascade, config, data="empty", initial=initial)
    learned = [name for name in blind if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(blind[name], second.model[name]) for name in learned)
