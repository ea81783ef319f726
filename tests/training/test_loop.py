"""Training: what each step sees, that it learns, and that a stopped run goes on as if it had not been stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cascade_rt.config import CascadeConfig, CropConfig, TrainConfig
from cascade_rt.crop import Box
from cascade_rt.data.sampling import Batch
from cascade_rt.data.slices import Case
from cascade_rt.errors import OutputExistsError, UsageError
from cascade_rt.models.cascade_model import CascadeModel
from cascade_rt.training.checkpoint import FILE_NAME, load_checkpoint
from cascade_rt.training.joint_pass import batch_losses, plan_training_boxes
from cascade_rt.training.loop import train
from cascade_rt.training.run_folder import CURVES_NAME, LOG_NAME
from cascade_rt.training.schedule import INTERMEDIATE, JOINT, SEPARATE, Step

CASCADE = CascadeConfig(base_width=8)
CONFIG = TrainConfig(epochs=(1, 1, 1), optimizer="adam", learning_rate=1e-3, batch_size=2, slices="organ")


def disc_case(slices: int = 4, side: int = 64) -> Case:
    """Slices with a bright organ and a darker tumour in it, each at another place."""
    random = np.random.default_rng(0)
    image = random.normal(-80, 10, (slices, side, side)).astype(np.int16)
    label = np.zeros(image.shape, dtype=np.uint8)
    for z in range(slices):
        row, col = 8 + 3 * z, 30 - 4 * z
        label[z, row : row + 24, col : col + 28] = 1
        label[z, row + 6 : row + 16, col + 6 : col + 18] = 2
    image[label == 1] += 180
    image[label == 2] += 120
    return Case("discs", image, label, (2.5, 0.8, 0.8))


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


def test_a_run_stopped_in_the_middle_of_an_epoch_and_resumed_ends_in_the_same_weights(tmp_path: Path) -> None:
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


def test_progress_and_history_say_nothing_of_a_boundary_loss_before_its_step(tmp_path: Path) -> None:
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


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    losses(tmp_path, replace(CONFIG, epochs=(1, 0, 0)))
    with pytest.raises(OutputExistsError, match="holds a training run; go on with --resume"):
        losses(tmp_path)


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


def box_inputs() -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions of four slices: both, label only, prediction only, neither."""
    label, prob = np.zeros((4, 256, 256), dtype=np.uint8), np.zeros((4, 256, 256), dtype=np.float32)
    label[:2, 100:120, 100:120] = 1
    prob[0, 30:40, 30:40] = 0.9
    prob[2, 200:210, 200:210] = 0.9
    return label, prob


def test_true_boxes_follow_the_label() -> None:
    slices, boxes = plan_training_boxes(*box_inputs(), CropConfig(empty_policy="skip"), predicted=False)
    assert (slices, boxes) == ([0, 1], [Box(78, 78, 64, 64)] * 2)


def test_predicted_boxes_follow_the_prediction_and_fall_back_to_the_label() -> None:
    slices, boxes = plan_training_boxes(*box_inputs(), CropConfig(empty_policy="skip"), predicted=True)
    assert slices == [0, 1, 2]
    assert boxes == [Box(3, 3, 64, 64), Box(78, 78, 64, 64), Box(173, 173, 64, 64)]


def test_a_slice_with_neither_goes_whole_under_the_policy_full_and_all_boxes_have_its_size() -> None:
    slices, boxes = plan_training_boxes(*box_inputs(), CropConfig(empty_policy="full"), predicted=True)
    assert slices == [0, 1, 2, 3]
    assert {box.size for box in boxes} == {(256, 256)}


@pytest.mark.parametrize(("step", "expected"), [(SEPARATE, "label"), (INTERMEDIATE, "label"), (JOINT, "prediction")])
def test_stage_2_sees_the_box_of_its_step(step: object, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CascadeModel(CascadeConfig(base_width=8))
    label, _ = box_inputs()
    batch = Batch(np.zeros((4, 1, 256, 256), dtype=np.float32), label)
    planned: list[bool] = []

    def watch(*args: object, predicted: bool) -> tuple[list[int], list[Box]]:
        planned.append(predicted)
        return [0], [Box(0, 0, 64, 64)]

    monkeypatch.setattr("cascade_rt.training.loop.plan_training_boxes", watch)
    batch_losses(model, batch, step, CONFIG)  # type: ignore[arg-type]
    assert planned == [expected == "prediction"]


def test_a_second_stage_that_finds_the_organ_is_trained_on_organ_and_tumour(monkeypatch: pytest.MonkeyPatch) -> None:
    case, targets = disc_case(2), []
    batch = Batch(case.image[:, None].astype(np.float32), np.array(case.label))
    monkeypatch.setattr(
        "cascade_rt.training.loop.total_loss",
        lambda organ, organ_target, tumor, tumor_target, config, boundary: targets.append(tumor_target),
    )
    for target in ("tumor", "organ"):
        batch_losses(CascadeModel(replace(CASCADE, target=target)), batch, SEPARATE, CONFIG)
    assert [int(target.sum()) for target in targets] == [np.sum(case.label == 2), np.sum(case.label > 0)]


def test_a_batch_without_any_crop_trains_stage_1_alone() -> None:
    model = CascadeModel(CascadeConfig(base_width=8, crop=CropConfig(empty_policy="skip")))
    batch = Batch(np.zeros((2, 1, 64, 64), dtype=np.float32), np.zeros((2, 64, 64), dtype=np.uint8))
    found = batch_losses(model, batch, SEPARATE, CONFIG)
    assert found.tumor.item() == 0
    found.total.backward()
    assert model.stage1.head.weight.grad is not None


def disc_batch() -> Batch:
    case = disc_case(2)
    return Batch(case.image[:, None].astype(np.float32), case.label)


@pytest.mark.parametrize("step", [SEPARATE, INTERMEDIATE, JOINT])
@pytest.mark.parametrize("boundary_from", ["S", "I", "J"])
def test_the_total_has_the_boundary_term_from_its_first_step_on(step: Step, boundary_from: str) -> None:
    config = replace(CONFIG, boundary_from=boundary_from)  # type: ignore[arg-type]
    with torch.no_grad():
        found = batch_losses(CascadeModel(CASCADE), disc_batch(), step, config)
    assert (found.boundary.item() > 0) == ("SIJ".index(step.name) >= "SIJ".index(boundary_from))
    torch.testing.assert_close(found.total, found.organ + 0.9 * found.tumor + 0.4 * found.boundary)


def test_a_boundary_weight_of_0_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("cascade_rt.training.loop.boundary_loss")
    monkeypatch.delattr("cascade_rt.training.loop.paste_crops")
    with torch.no_grad():
        found = batch_losses(CascadeModel(CASCADE), disc_batch(), JOINT, replace(CONFIG, boundary_weight=0))
    assert found.boundary.item() == 0


def gradient_sizes(model: CascadeModel, loss: torch.Tensor) -> dict[str, float]:
    """Largest gradient in each of the two networks."""
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {
        name: max(
            (float(p.grad.abs().max()) for p in getattr(model, name).parameters() if p.grad is not None), default=0
        )
        for name in ("stage1", "stage2")
    }


@pytest.mark.parametrize("mode", ["ste", "ste_matrix", "soft"])
@pytest.mark.parametrize("step", [SEPARATE, INTERMEDIATE, JOINT])
def test_the_boundary_loss_trains_both_stages_in_each_step(step: Step, mode: str) -> None:
    torch.manual_seed(0)
    model = CascadeModel(CASCADE)
    config = replace(CONFIG, boundary_mode=mode)  # type: ignore[arg-type]
    sizes = gradient_sizes(model, batch_losses(model, disc_batch(), step, config).boundary)
    assert all(0 < size < np.inf for size in sizes.values())


def test_the_tumour_loss_alone_does_not_reach_stage_1_in_s() -> None:
    model = CascadeModel(CASCADE)
    sizes = gradient_sizes(model, batch_losses(model, disc_batch(), SEPARATE, CONFIG).tumor)
    assert sizes["stage1"] == 0 < sizes["stage2"]


def test_with_the_boundary_loss_only_watched_the_gradient_is_that_of_the_other_two() -> None:
    gradients = []
    for changes in ({"boundary_mode": "hard"}, {"boundary_weight": 0.0}):
        torch.manual_seed(0)
        model = CascadeModel(CASCADE)
        batch_losses(model, disc_batch(), INTERMEDIATE, replace(CONFIG, **changes)).total.backward()  # type: ignore[arg-type, no-untyped-call]
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("classes", "target", "expected"),
    [(3, "tumor", {0: 0, 1: 1, 2: 2}), (2, "tumor", {0: 0, 1: 0, 2: 1}), (2, "organ", {0: 0, 1: 1, 2: 1})],
)
def test_two_classes_are_the_target_of_stage_2_and_the_rest(
    classes: int, target: str, expected: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def watch(organ_logits: torch.Tensor, tumor_prob: torch.Tensor, label: torch.Tensor, _: object) -> torch.Tensor:
        seen.append(label)
        return organ_logits.new_zeros(())

    monkeypatch.setattr("cascade_rt.training.loop.boundary_loss", watch)
    batch = disc_batch()
    with torch.no_grad():
        model = CascadeModel(replace(CASCADE, target=target))  # type: ignore[arg-type]
        batch_losses(model, batch, SEPARATE, replace(CONFIG, boundary_classes=classes))  # type: ignore[arg-type]
    assert {value: set(seen[0].numpy()[batch.label == value].tolist()) for value in expected} == {
        value: {found} for value, found in expected.items()
    }


def test_a_slice_without_a_crop_enters_the_boundary_loss_without_a_tumour(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def watch(organ_logits: torch.Tensor, tumor_prob: torch.Tensor, label: torch.Tensor, _: object) -> torch.Tensor:
        seen.append(tumor_prob)
        return organ_logits.new_zeros(())

    monkeypatch.setattr("cascade_rt.training.loop.boundary_loss", watch)
    batch = disc_batch()
    batch.label[0] = 0
    model = CascadeModel(replace(CASCADE, crop=CropConfig(empty_policy="skip")))
    with torch.no_grad():
        batch_losses(model, batch, SEPARATE, CONFIG)
    assert [bool(prob.any()) for prob in seen[0]] == [False, True]
