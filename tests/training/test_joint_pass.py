"""One batch through both stages: what each step sees, and which weights a loss reaches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cascade_rt.config import CascadeConfig, CropConfig, TrainConfig
from cascade_rt.data.sampling import Batch
from cascade_rt.models.cascade_model import CascadeModel, OrganPass
from cascade_rt.models.crop import Box
from cascade_rt.training.joint_pass import CropGroup, batch_losses, plan_training_boxes
from cascade_rt.training.schedule import INTERMEDIATE, JOINT, SEPARATE, Step
from tests.training_cases import disc_case

CASCADE = CascadeConfig(base_width=8)
SINGLE = CascadeConfig(base_width=8, stage1="none", stage2="multiscale_unet", saliency=False)
CONFIG = TrainConfig(epochs=(1, 1, 1), optimizer="adam", learning_rate=1e-3, batch_size=2, slices="organ")


def box_inputs() -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions of four slices: both, label only, prediction only, neither."""
    label, organ = np.zeros((4, 256, 256), dtype=np.uint8), np.zeros((4, 256, 256), dtype=np.bool_)
    label[:2, 100:120, 100:120] = 1
    organ[0, 30:40, 30:40] = True
    organ[2, 200:210, 200:210] = True
    return label, organ


SKIP, FULL = CropConfig(empty_policy="skip"), CropConfig(empty_policy="full")


def test_true_boxes_follow_the_label() -> None:
    label, _ = box_inputs()
    assert plan_training_boxes(label, None, SKIP) == [CropGroup([0, 1], [Box(78, 78, 64, 64)] * 2)]


def test_predicted_boxes_fall_back_to_the_label() -> None:
    (group,) = plan_training_boxes(*box_inputs(), SKIP)
    assert group == CropGroup([0, 1, 2], [Box(3, 3, 64, 64), Box(78, 78, 64, 64), Box(173, 173, 64, 64)])


def test_crops_of_one_group_have_the_size_of_the_largest() -> None:
    label, _ = box_inputs()
    label[1, 60:130, 90:200] = 1
    (group,) = plan_training_boxes(label, None, SKIP)
    assert {box.size for box in group.boxes} == {(128, 160)}


def test_policy_full_groups_slices_without_organ_apart_as_whole_slices() -> None:
    organs, whole = plan_training_boxes(*box_inputs(), FULL)
    assert (organs.slices, {box.size for box in organs.boxes}) == ([0, 1, 2], {(64, 64)})
    assert whole == CropGroup([3], [Box(0, 0, 256, 256)])


def test_margins_of_their_own_move_the_sides_of_a_box() -> None:
    label = np.zeros((1, 256, 256), dtype=np.uint8)
    label[0, 100:164, 100:164] = 1
    (group,) = plan_training_boxes(label, None, SKIP, np.array([[0, 32, 32, 0]]))
    assert group.boxes == [Box(100, 68, 96, 96)]


class WatchedModel(CascadeModel):
    """Notes the boxes that stage 2 is shown, and paints a small organ at one place."""

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__(config)
        self.seen: list[list[Box]] = []

    def find_organ(self, hu: torch.Tensor) -> OrganPass:
        organ = super().find_organ(hu)
        prob = torch.zeros_like(organ.prob)
        prob[:, :, 30:40, 30:40] = 0.9
        return organ._replace(prob=prob)

    def find_tumor(self, organ: OrganPass, slices: object, boxes: object, *, use_saliency: bool) -> list[torch.Tensor]:
        self.seen.append(list(boxes))  # type: ignore[call-overload]
        return super().find_tumor(organ, slices, boxes, use_saliency=use_saliency)  # type: ignore[arg-type]


def labelled_batch() -> Batch:
    """One slice with its organ at another place than `WatchedModel` paints it."""
    label = np.zeros((1, 256, 256), dtype=np.uint8)
    label[0, 100:120, 100:120] = 1
    return Batch(np.zeros((1, 1, 256, 256), dtype=np.float32), label)


@pytest.mark.parametrize(("step", "box"), [(SEPARATE, (78, 78)), (INTERMEDIATE, (78, 78)), (JOINT, (3, 3))])
def test_stage_2_sees_the_box_of_its_step(step: Step, box: tuple[int, int]) -> None:
    model = WatchedModel(CASCADE)
    with torch.no_grad():
        batch_losses(model, labelled_batch(), step, CONFIG)
    assert model.seen == [[Box(*box, 64, 64)]]


def test_boxes_of_stage_2_are_planned_around_what_a_first_pass_found() -> None:
    model = WatchedModel(CASCADE)
    finest = model.stage2.focusing[-1].map
    torch.nn.init.zeros_(finest.weight)
    torch.nn.init.constant_(finest.bias, 5.0)
    with torch.no_grad():
        batch_losses(model, labelled_batch(), JOINT, replace(CONFIG, joint_crop="stage2"))
    # All of the first crop, rows and columns 3 to 67, is found; with its margin of 20 that is 0 to 87, grown to 96.
    assert model.seen == [[Box(3, 3, 64, 64)], [Box(0, 0, 96, 96)]]


def test_joint_crops_fall_back_to_stage_1_if_stage_2_found_nothing() -> None:
    model = WatchedModel(CASCADE)
    finest = model.stage2.focusing[-1].map
    torch.nn.init.zeros_(finest.weight)
    torch.nn.init.constant_(finest.bias, -5.0)
    with torch.no_grad():
        batch_losses(model, labelled_batch(), JOINT, replace(CONFIG, joint_crop="stage2"))
    assert model.seen == [[Box(3, 3, 64, 64)]] * 2


def test_without_a_stage_1_stage_2_sees_whole_slices_in_each_step() -> None:
    for step in (SEPARATE, INTERMEDIATE, JOINT):
        model = CascadeModel(SINGLE)
        found = batch_losses(model, disc_batch(), step, CONFIG)
        found.total.backward()  # type: ignore[no-untyped-call]
        assert (found.organ.item(), found.boundary.item()) == (0, 0)
        assert all(parameter.grad is not None for parameter in model.stage2.parameters())


def test_a_stage_1_that_is_not_trained_has_no_loss_and_no_gradient() -> None:
    for step in (SEPARATE, INTERMEDIATE, JOINT):
        model = CascadeModel(CASCADE)
        found = batch_losses(model, disc_batch(), step, replace(CONFIG, train_stage1=False))
        found.total.backward()  # type: ignore[no-untyped-call]
        assert found.organ.item() == 0
        assert all(parameter.grad is None for parameter in model.stage1.parameters())
        assert model.stage2.localization.map.weight.grad is not None


def test_the_tumor_loss_is_the_mean_over_all_crops_whatever_their_group() -> None:
    model = CascadeModel(replace(CASCADE, norm="instance")).eval()
    both = disc_batch()
    both.label[1] = 0
    with torch.no_grad():
        alone = [
            batch_losses(model, Batch(both.hu[[index]], both.label[[index]]), SEPARATE, CONFIG).tumor
            for index in range(2)
        ]
        joined = batch_losses(model, both, SEPARATE, CONFIG).tumor
    torch.testing.assert_close(joined, (alone[0] + alone[1]) / 2)


def test_an_organ_stage_2_is_trained_on_organ_and_tumor(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, targets = disc_batch(), []

    def watch(maps: list[torch.Tensor], target: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        targets.append(target)
        return maps[-1].sum()

    monkeypatch.setattr("cascade_rt.training.joint_pass.tumor_loss", watch)
    for target in ("tumor", "organ"):
        batch_losses(CascadeModel(replace(CASCADE, target=target)), batch, SEPARATE, CONFIG)  # type: ignore[arg-type]
    assert [int(target.sum()) for target in targets] == [np.sum(batch.label == 2), np.sum(batch.label > 0)]


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
    monkeypatch.delattr("cascade_rt.training.joint_pass.boundary_loss")
    monkeypatch.delattr("cascade_rt.training.joint_pass._paste_groups")
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


def test_the_tumor_loss_alone_does_not_reach_stage_1_in_s() -> None:
    model = CascadeModel(CASCADE)
    sizes = gradient_sizes(model, batch_losses(model, disc_batch(), SEPARATE, CONFIG).tumor)
    assert sizes["stage1"] == 0 < sizes["stage2"]


def test_a_boundary_loss_that_is_only_watched_has_no_gradient() -> None:
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

    monkeypatch.setattr("cascade_rt.training.joint_pass.boundary_loss", watch)
    batch = disc_batch()
    with torch.no_grad():
        model = CascadeModel(replace(CASCADE, target=target))  # type: ignore[arg-type]
        batch_losses(model, batch, SEPARATE, replace(CONFIG, boundary_classes=classes))  # type: ignore[arg-type]
    assert {value: set(seen[0].numpy()[batch.label == value].tolist()) for value in expected} == {
        value: {found} for value, found in expected.items()
    }


def test_a_slice_without_a_crop_enters_the_boundary_loss_without_a_tumor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def watch(organ_logits: torch.Tensor, tumor_prob: torch.Tensor, label: torch.Tensor, _: object) -> torch.Tensor:
        seen.append(tumor_prob)
        return organ_logits.new_zeros(())

    monkeypatch.setattr("cascade_rt.training.joint_pass.boundary_loss", watch)
    batch = disc_batch()
    batch.label[0] = 0
    model = CascadeModel(replace(CASCADE, crop=CropConfig(empty_policy="skip")))
    with torch.no_grad():
        batch_losses(model, batch, SEPARATE, CONFIG)
    assert [bool(prob.any()) for prob in seen[0]] == [False, True]
