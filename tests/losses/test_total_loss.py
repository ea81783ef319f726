"""The total is Eq. 17."""

import torch

from cascade_rt.config import TrainConfig
from cascade_rt.losses.segmentation import dice_loss, tumor_loss
from cascade_rt.losses.shared_boundary import class_probabilities, shared_boundary_loss
from cascade_rt.losses.total import boundary_loss, total_loss


def parts() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(2, 1, 32, 32, generator=generator) > 0.5).float()
    outputs = [torch.randn(2, 1, 32, 32, generator=generator) for _ in range(5)]
    return torch.randn(2, 1, 32, 32, generator=generator), target, outputs, target


def test_stage_2_counts_nine_tenths() -> None:
    organ_logits, organ_target, outputs, tumor_target = parts()
    losses = total_loss(organ_logits, organ_target, outputs, tumor_target, TrainConfig())
    expected = dice_loss(organ_logits, organ_target) + 0.9 * tumor_loss(outputs, tumor_target, (0.5, 1, 2, 4))
    torch.testing.assert_close(losses.total, expected)


def test_without_crops_only_stage_1_counts() -> None:
    organ_logits, organ_target, _, _ = parts()
    losses = total_loss(organ_logits, organ_target, [], torch.zeros(()), TrainConfig())
    torch.testing.assert_close(losses.total, losses.organ)
    assert losses.tumor.item() == 0


def test_the_shared_boundary_counts_four_tenths() -> None:
    boundary = torch.tensor(0.25)
    without = total_loss(*parts(), TrainConfig())
    losses = total_loss(*parts(), TrainConfig(), boundary=boundary)
    torch.testing.assert_close(losses.total, without.total + 0.4 * boundary)
    assert (losses.boundary.item(), without.boundary.item()) == (0.25, 0)


def test_the_shared_boundary_counts_without_crops_too() -> None:
    organ_logits, organ_target, _, _ = parts()
    losses = total_loss(organ_logits, organ_target, [], torch.zeros(()), TrainConfig(), boundary=torch.tensor(0.25))
    torch.testing.assert_close(losses.total, losses.organ + 0.1)


def test_the_shared_boundary_is_computed_as_the_config_says() -> None:
    organ_logits, organ_target, _, _ = parts()
    tumor_prob, label = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)), organ_target[:, 0]
    config = TrainConfig(boundary_mode="soft", boundary_frame=False)
    prob = class_probabilities(torch.sigmoid(organ_logits), tumor_prob, 3)
    expected = shared_boundary_loss(prob, label, mode="soft", count_frame=False)
    torch.testing.assert_close(boundary_loss(organ_logits, tumor_prob, label, config), expected)


def test_focusing_outputs_take_the_plain_cross_entropy_where_asked_for() -> None:
    organ_logits, organ_target, outputs, tumor_target = parts()
    losses = total_loss(organ_logits, organ_target, outputs, tumor_target, TrainConfig(legacy_unweighted_bce=True))
    torch.testing.assert_close(
        losses.tumor, tumor_loss(outputs, tumor_target, (0.5, 1, 2, 4), legacy_unweighted_bce=True)
    )


def test_cross_entropy_joins_stage_1_where_asked_for() -> None:
    organ_logits, organ_target, outputs, tumor_target = parts()
    plain = total_loss(organ_logits, organ_target, outputs, tumor_target, TrainConfig())
    joined = total_loss(organ_logits, organ_target, outputs, tumor_target, TrainConfig(organ_loss="dice_bce"))
    extra = torch.nn.functional.binary_cross_entropy_with_logits(organ_logits, organ_target)
    torch.testing.assert_close(joined.organ - plain.organ, extra)


def test_on_a_slice_without_organ_cross_entropy_has_a_gradient_and_dice_has_none() -> None:
    target = torch.zeros(1, 1, 32, 32)
    gradients = {}
    for kind in ("dice", "dice_bce"):
        logits = torch.zeros(1, 1, 32, 32, requires_grad=True)
        total_loss(logits, target, [], target, TrainConfig(organ_loss=kind)).total.backward()  # type: ignore[arg-type]
        gradients[kind] = float(logits.grad.abs().max())  # type: ignore[union-attr]
    assert gradients["dice"] < 1e-9
    assert gradients["dice_bce"] > 1e-5
